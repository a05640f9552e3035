"""Engines side by side: one model, the same requests, in one process; scores are compared before any ratio is printed.

- plain: transformers, one prompt at a time.
- ours: the back end `huggingface`: prefixes shared where candidates are scored, a stream of rows for texts.
- vllm: the back end `vllm`, in this process, after its trial; where vLLM is installed.
- http: a server at --server that serves the same model as --served, as `evaluate.scorer` asks it; scores alone. One
  that tells no exact log-odds is asked for --alternatives.

Workload: users x candidates, a user summary of about 120 tokens each, an image each where the model sees any; and a
text of 32 tokens for each user. Tokens per second are those of whole prompts (scores) or of answers (texts), starting
excluded; --json has the ratios of processor seconds too, which a busy machine changes least. A cold engine is timed:
nothing of the workload was asked before, but for the trial's prompts. The last line names the engine that
`backend: auto` chooses here, and the fastest one by scores of those that it may choose.

    python benchmarks/engines.py [--model FOLDER --template NAME] [--dtype float32] [--users 4] [--server URL] [--json]
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from msr_adapter.backends import make_server_scorer
from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.backends.vllm.backend import VllmBackend
from msr_adapter.backends.vllm.installed import automatic, installed_version
from msr_adapter.backends.vllm.trial import TOLERANCE
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.files import file_digest
from msr_adapter.generation.request import Backend, Completion, Image, Request
from msr_adapter.llamafactory.model_weights import BASE

CANDIDATES, WRITTEN = 21, 32
TEXT = "bold quiet red comic covers with dogs, ships and night scenes in short funny stories about old friends"


@dataclass(frozen=True)
class Measured:
    """One way of answering, on one half of the workload."""

    seconds: float
    processor: float
    """Seconds of processors, of this process: what a machine busy with other work changes least."""
    tokens: int
    answers: list[Completion]

    @property
    def pace(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Served:
    """A server of the same model."""

    name: str
    config: ServerConfig


def requests(folder: Path, users: int, *, shown: bool) -> tuple[list[Request], list[Request]]:
    """Return requests for scores and for texts; with ``shown``, every candidate has an image of its own."""
    images: list[tuple[Image, ...]] = [()] * CANDIDATES
    if shown:
        for place in range(CANDIDATES):
            path = folder / f"{place}.png"
            PillowImage.new("RGB", (56, 56), (11 * place, 90, 255 - 11 * place)).save(path)
            images[place] = (Image(path, file_digest(path)),)
    scored, written = [], []
    for user in range(users):
        summary = f"User {user} likes {' and '.join([TEXT] * 4)}."
        written.append(Request("m", f"{summary} Say it in one sentence.", max_new_tokens=WRITTEN))
        for place, image in enumerate(images):
            picture = "<image>\n" if image else ""
            prompt = f"{summary}\n{picture}Title: story {place} of {TEXT}\nWill the user choose it?"
            scored.append(Request("m", prompt, image, choices=("Yes", "No")))
    return scored, written


def measured(ask: Callable[[Sequence[Request]], Sequence[object]], asked: Sequence[Request]) -> Measured:
    """Return how long ``ask`` took for all of ``asked``, and its answers. Raises where one failed."""
    start, begun = time.perf_counter(), time.process_time()
    answers = [answer for answer in ask(asked) if isinstance(answer, Completion)]
    seconds, processor = time.perf_counter() - start, time.process_time() - begun
    if len(answers) != len(asked):
        raise SystemExit("a request failed")
    tokens = sum(one.tokens_in if asked[0].choices else one.tokens_out for one in answers)
    return Measured(seconds, processor, tokens, answers)


def odds(answers: Sequence[Completion]) -> np.ndarray:
    """Return the log-odds of each answer, (n,)."""
    return np.array([answer.choice_logprobs[0] - answer.choice_logprobs[1] for answer in answers])


def compare(model: ModelConfig, users: int, server: Served | None) -> dict[str, dict[str, float]]:
    """Return way -> its paces, ratios to plain, largest difference of log-odds, and texts that differ."""
    exact = HuggingFaceBackend(model)
    loaded = exact._load()
    with tempfile.TemporaryDirectory() as folder:
        scored, written = requests(Path(folder), users, shown=loaded.encoder.sees_images)

        def one_by_one(asked: Sequence[Request]) -> list[Completion]:
            answers = []
            for request in asked:
                ids = loaded.encoder.encode(request.prompt, [one.path for one in request.images], request.label_words)
                answers += (loaded.score if request.choices else loaded.write)([(request, ids)])
            return answers

        one_by_one(scored[:1])  # what is set up at a first call
        found = {"plain": (measured(one_by_one, scored), measured(one_by_one, written))}
        found["ours"] = (measured(exact.complete, scored), measured(exact.complete, written))
        others: dict[str, Backend] = {"vllm": VllmBackend(model)} if installed_version() else {}
        if server:
            served = ModelConfig(path=server.name, backend="server", server=server.config)
            others["http"] = make_server_scorer(served, model, BASE)
        for name, backend in others.items():
            backend.complete(scored[-1:])  # the engine starts, and is tried
            scores = measured(backend.complete, scored)
            found[name] = (scores, measured(backend.complete, written)) if name != "http" else (scores, scores)
    plain = found["plain"]
    table = {}
    for name, (scores, texts) in found.items():
        difference = float(np.abs(odds(scores.answers) - odds(plain[0].answers)).max())
        if not difference <= TOLERANCE[model.dtype]:
            raise SystemExit(f"{name}: log-odds differ by {difference:.3g}, no ratio is worth printing")
        table[name] = {"scores": scores.pace, "scores_ratio": scores.pace / plain[0].pace, "difference": difference}
        if name != "http":
            unlike = sum(one.text != two.text for one, two in zip(texts.answers, plain[1].answers, strict=True))
            table[name] |= {"texts": texts.pace, "texts_ratio": texts.pace / plain[1].pace, "unlike_texts": unlike}
            table[name] |= {
                "scores_processor": plain[0].processor / scores.processor,
                "texts_processor": plain[1].processor / texts.processor,
            }
    return table


def main() -> None:
    """Print the table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported, by the back ends
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--template", default="auto")
    parser.add_argument("--dtype", default="float32", choices=TOLERANCE)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--server")
    parser.add_argument("--served")
    parser.add_argument("--alternatives", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pixels = {"image_max_pixels": 3136} if options.model == "tiny" else {}
    model = ModelConfig(path=options.model, template=options.template, dtype=options.dtype, **pixels)
    server = None
    if options.server:
        config = ServerConfig(url=options.server, top_logprobs=options.alternatives, timeout=600)
        server = Served(options.served or options.model, config)
    table = compare(model, options.users, server)
    if options.json:
        print(json.dumps(table, indent=1))
        return
    print(
        f"{'':8}{'scores: tokens/s':>18}{'ratio':>8}{'difference':>12}{'texts: tokens/s':>18}{'ratio':>8}{'unlike':>8}"
    )
    for name, row in table.items():
        told = f"{name:8}{row['scores']:>18,.0f}{row['scores_ratio']:>8.1f}{row['difference']:>12.1e}"
        if "texts" in row:
            told += f"{row['texts']:>18,.0f}{row['texts_ratio']:>8.1f}{row['unlike_texts']:>8.0f}"
        print(told)
    rule = automatic(model)
    fastest = max((name for name in ("ours", "vllm") if name in table), key=lambda name: table[name]["scores"])
    names = {"ours": "huggingface", "vllm": "vllm"}
    print(f"backend auto is {rule.model.backend} here ({rule.because}); the fastest by scores: {names[fastest]}")


if __name__ == "__main__":
    main()
