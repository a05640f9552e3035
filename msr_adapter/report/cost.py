"""What a run cost, from the manifests of its stages: time, memory, model calls, and what shared prefixes saved."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msr_adapter.report.report_context import EngineFacts, Manifests, StageManifest, StageSummary, summary_of


def cost_rows(manifests: Manifests, labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Return {stage, time, memory, calls, cached, read, written} of each finished stage and of the whole run.

    ``labels`` has the stages in order, each with what it is called; the evaluation is not over yet and has no row.
    Calls and tokens are those of the distinct requests to a model, whether computed in this run or earlier.
    """
    finished = [name for name in labels if name in manifests and name != "evaluate"]
    costs = {labels[name]: _cost(manifests[name]) for name in finished}
    if len(costs) > 1:
        costs["Whole run"] = _total(list(costs.values()))
    return [_row(name, cost) for name, cost in costs.items()]


def prefix_sharing_lines(manifests: Manifests, labels: Mapping[str, str]) -> list[str]:
    """Say of each scoring stage how much a shared prefix saved, and how often the model had other words to say."""
    lines = []
    for name in ("mine", "score", "score-base", "score-validation", "rerank", "rerank-base"):
        summary = summary_of(manifests, name)
        if parts := [*_shared(summary), *_outside_the_answers(summary)]:
            lines.append(f"{labels[name]}: {'; '.join(parts)}.")
    return lines


def engine_lines(manifests: Manifests, labels: Mapping[str, str]) -> list[str]:
    """Say of each stage that an engine answered which one it was, and how it compared with transformers."""
    stages = ((labels[name], summary_of(manifests, name)) for name in labels if name in manifests)
    return [f"{label}: {_engine(found, summary)}." for label, summary in stages if (found := summary.get("engine"))]


def _engine(found: EngineFacts, summary: StageSummary) -> str:
    told = ", ".join(filter(None, (found.get("name"), found.get("chosen"), _adapters(found))))
    if (trial := found.get("trial")) is None:
        return told
    # Only of whole texts a score is more than one token's.
    what = "log-probabilities of a text's tokens" if "answer_tokens" in summary else "log-odds"
    return (
        f"{told}; {trial['prompts']} prompts of this run were answered by transformers too, before it was trusted: "
        f"{what} differ by {trial['difference']:.2g} at most, {trial['allowed']:g} are allowed"
    )


def _adapters(found: EngineFacts) -> str:
    return f"adapter {found['adapters']}" if "adapters" in found else ""


def _shared(summary: StageSummary) -> list[str]:
    flat, done, least = summary.get("tokens_flat"), summary.get("tokens_processed"), summary.get("tokens_least")
    if not flat or done is None:
        return []
    limit = f", and {least / flat:.0%} would be the minimum" if least else ""
    told = [f"{done:,} tokens processed for prompts of {flat:,} tokens ({done / flat:.0%}{limit})"]
    if summary.get("images_shown"):
        told.append(f"{summary['images_encoded']:,} images encoded for {summary['images_shown']:,} shown")
    if summary.get("unshared_rows"):
        because = summary.get("unshared_because", "?")
        told.append(f"{summary['unshared_rows']:,} prompts processed one by one, because {because}")
    return told


def _outside_the_answers(summary: StageSummary) -> list[str]:
    mass = summary.get("answer_mass")
    if not isinstance(mass, float):
        return []
    told = f"{1 - mass:.1%} of the probability falls outside the two answers"
    rather = summary.get("rather_something_else")
    return [f"{told}, and for {rather:,} candidates most of it does" if rather else told]


@dataclass(frozen=True)
class _Cost:
    """What one stage cost, or all of them; None where a stage asks no model."""

    seconds: float
    peak_bytes: int
    peak_gpu_bytes: int
    computed: int | None
    cached: int | None
    requests: int | None
    """Distinct requests to a model."""
    tokens_in: int | None
    tokens_out: int | None


def _cost(manifest: StageManifest) -> _Cost:
    summary = manifest.get("summary") or StageSummary()
    computed, cached = summary.get("computed"), summary.get("cached")
    return _Cost(
        float(manifest.get("seconds") or 0), manifest.get("peak_bytes") or 0, manifest.get("peak_gpu_bytes") or 0,
        computed, cached, summary.get("distinct_requests", _sum([computed, cached])),
        summary.get("tokens_in"), summary.get("tokens_out"),
    )  # fmt: skip


def _total(costs: Sequence[_Cost]) -> _Cost:
    """Add up times, calls and tokens; memory is that of the largest stage."""
    return _Cost(
        sum(cost.seconds for cost in costs),
        max(cost.peak_bytes for cost in costs), max(cost.peak_gpu_bytes for cost in costs),
        *(_sum(getattr(cost, name) for cost in costs)
          for name in ("computed", "cached", "requests", "tokens_in", "tokens_out")),
    )  # fmt: skip


def _row(name: str, cost: _Cost) -> dict[str, str]:
    gpu = size(cost.peak_gpu_bytes)
    return {
        "stage": name,
        "time": duration(cost.seconds),
        "memory": ", ".join(filter(None, [size(cost.peak_bytes), gpu and f"{gpu} GPU"])),
        "calls": _number(cost.requests),
        "cached": _number(cost.cached),
        "read": _number(cost.tokens_in),
        "written": _number(cost.tokens_out),
    }


def _sum(values: Iterable[int | None]) -> int | None:
    found = [value for value in values if isinstance(value, int)]
    return sum(found) if found else None


def _number(value: int | None) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def size(count: int | None) -> str:
    """Return bytes as people say them, ``1.5 GiB`` or ``12 MiB``; nothing for none."""
    if not count:
        return ""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``8.8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
