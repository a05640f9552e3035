"""Scores through a server: those of the model in memory, or bounds that say so; never for prompts that were not trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scoring_server import Serving, serving
from summaries import Lines
from tiny_models import tiny_model
from tiny_run import QUIET, model_ref, stages, train_config

from msr_adapter import schema
from msr_adapter.backends import make_backend, make_server_scorer
from msr_adapter.backends.server import ServerBackend
from msr_adapter.config.models import ModelRef, Server
from msr_adapter.generation import CompletionCache
from msr_adapter.llamafactory.weights import BASE
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.score import score

WHOLE = 1_000
"""More alternatives than the tiny vocabulary has."""


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving(tiny_model("qwen2_vl")) as one:
        yield one


@pytest.fixture(autouse=True)
def behave(served: Serving) -> Iterator[None]:
    usual = {name: getattr(served, name) for name in ("system", "tokenise", "top", "key", "numbers")}
    served.scored = served.tokenised = 0
    served.bodies.clear()
    yield
    for name, value in usual.items():
        setattr(served, name, value)


def scorer(served: Serving, taught: ModelRef | None = None, **server: Any) -> ServerBackend:
    settings = {"url": served.url, "top_logprobs": WHOLE, "retries": 0, "first_wait": 0.01, **server}
    model = ModelRef(path="ours", backend="server", server=Server.model_validate(settings))
    made = make_server_scorer(model, taught or model_ref(), BASE)
    assert isinstance(made, ServerBackend)
    return made


def run(backend: Any, out: Path, reporter: Reporter = QUIET, share: float = 0.05) -> dict[str, Any]:
    out.mkdir()
    made = stages()
    with CompletionCache(out / "c.sqlite") as cache:
        return score(train_config(), made.data, made.users, Prompts(), backend, cache, out, reporter, share)


def read(out: Path) -> dict[str, np.ndarray]:
    table = schema.read_table(out / "scores.parquet", schema.SCORES)
    return {name: np.array(table[name]) for name in ("score", "logit", "answer_mass", "bounded")}


def test_a_server_gives_the_scores_of_the_model_loaded_here(served: Serving, tmp_path: Path) -> None:
    lines = Lines()
    counts = run(scorer(served), tmp_path / "server", lines)
    run(make_backend(model_ref()), tmp_path / "here")
    theirs, ours = read(tmp_path / "server"), read(tmp_path / "here")
    for name in ("score", "logit", "answer_mass"):
        assert theirs[name] == pytest.approx(ours[name], abs=1e-4)
    assert not theirs["bounded"].any()
    assert counts["bounded"] == 0
    assert (served.scored, served.tokenised) == (16, 8)
    pictured = sum(isinstance(body["messages"][-1]["content"], list) for body in served.bodies)
    assert 0 < pictured < 16
    assert (
        counts["prompts"] == "verified: 8 prompts have the tokens that training taught, 4 of them around their pictures"
    )
    assert counts["prompts"] in lines.text
    assert counts["tokens_in"] > 0
    assert {(body["max_tokens"], body["temperature"], body["logprobs"]) for body in served.bodies} == {(1, 0, True)}
