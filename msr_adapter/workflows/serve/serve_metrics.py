"""What Prometheus reads: latencies, the queue, batches, refusals."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from msr_adapter.version import __version__
from msr_adapter.workflows.serve.engine import BatchFacts

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)
_PAIRS = (1, 8, 32, 64, 128, 256, 512, 1024, 4096)


class ServeMetrics:
    """Counters of one server, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("msr_requests", "Requests answered.", ("path", "status"), registry=registry)
        self._seconds = Histogram(
            "msr_request_seconds", "Time from a request's arrival to its answer.", ("path",), buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._refusals = Counter("msr_refusals", "Requests not carried out, by reason.", ("reason",), registry=registry)
        self._batch_requests = Histogram(
            "msr_batch_requests", "Requests that were answered together.", buckets=_REQUESTS, registry=registry
        )
        self._batch_pairs = Histogram("msr_batch_pairs", "Pairs of a batch.", buckets=_PAIRS, registry=registry)
        self._batch_seconds = Histogram(
            "msr_batch_seconds", "Time of a batch, by phase.", ("phase",), buckets=_SECONDS, registry=registry
        )
        self._pairs = Counter("msr_pairs", "Pairs scored, by who knew the answer.", ("source",), registry=registry)
        self._steps = Counter("msr_summary_steps_computed", "Blocks of histories that a model read.", registry=registry)
        Gauge("msr_info", "The version.", ("version",), registry=registry).labels(__version__).set(1)

    def watch_queue(self, length: Callable[[], int], under_way: Callable[[], int]) -> None:
        """Show the number of requests that wait, and of those that are not answered yet."""
        waiting = Gauge("msr_queue_length", "Requests that wait for the model.", registry=self.registry)
        waiting.set_function(length)
        open_requests = Gauge("msr_requests_under_way", "Requests not answered yet.", registry=self.registry)
        open_requests.set_function(under_way)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request; ``path`` is one of the server's, never what a client wrote."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a request that was not carried out."""
        self._refusals.labels(reason).inc()

    def batch(self, facts: BatchFacts) -> None:
        """Count a batch."""
        self._batch_requests.observe(facts.requests)
        self._batch_pairs.observe(facts.pairs)
        self._batch_seconds.labels("summaries").observe(facts.summaries_s)
        self._batch_seconds.labels("scores").observe(facts.scores_s)
        self._pairs.labels("model").inc(facts.computed)
        self._pairs.labels("cache").inc(facts.pairs - facts.computed)
        self._steps.inc(facts.summary_steps)

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self.registry)
