"""Scores: one per test candidate, from the probabilities of the two answers; the trained model's differ."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from msr_adapter import schema
from msr_adapter.backends import make_backend
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.candidate_rows import CandidateFolders, CandidateRows, candidate_blocks, count_rows
from msr_adapter.errors import StageError, UserError
from msr_adapter.generation import Answer, Backend, Completion, CompletionCache, Request
from msr_adapter.generation.request_shards import ShardJob
from msr_adapter.llamafactory.model_weights import trained_weights
from msr_adapter.prompts import Prompts
from msr_adapter.score import answer_stream, score
from msr_adapter.score import scoring as scoring_module
from msr_adapter.stage_arguments import Client, Job, StageDirs
from tests.support.tiny_run import QUIET, model_ref, stages, train_config, trained, write_upstream


class FixedBackend(Backend):
    """Answers every request with the given log-probabilities, one after another."""

    identity = label = "fixed"

    def __init__(self, logprobs: Sequence[tuple[float, ...]], tokens_in: int = 9) -> None:
        self._logprobs, self._tokens_in, self.asked = list(logprobs), tokens_in, list[Request]()

    def complete(self, requests: Sequence[Request], *rest: Any) -> list[Completion]:
        self.asked += requests
        return [Completion(r.key, "", self._logprobs.pop(0), "choice", self._tokens_in, 0) for r in requests]


def run(
    made: StageDirs, out: Path, backend: Backend, reporter: Any = QUIET, shard: int = 256, **settings: Any
) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    with CompletionCache(out.parent / "completions.sqlite", shard_requests=shard) as cache:
        return score(train_config(**settings), made, Client(Prompts(), backend, cache), Job(out, reporter))


def read(out: Path) -> pa.Table:
    return schema.read_table(out / "scores.parquet", schema.SCORES)


def test_scores_by_hand(tmp_path: Path) -> None:
    pairs = [(0.6, 0.2), (0.01, 0.03), (0.5, 0.5), (1e-9, 0.9)] * 4
    logprobs = [(math.log(yes), math.log(no)) for yes, no in pairs]
    counts = run(stages(), tmp_path / "score", FixedBackend(logprobs))
    table = read(tmp_path / "score")
    assert table["score"].to_pylist()[:4] == pytest.approx([0.75, 0.25, 0.5, 1e-9 / (0.9 + 1e-9)])
    assert table["logit"].to_pylist()[:2] == pytest.approx([math.log(3), -math.log(3)])
    assert table["answer_mass"].to_pylist()[:4] == pytest.approx([0.8, 0.04, 1.0, 0.9])
    assert (counts["candidates"], counts["examples"], counts["tokens_in"]) == (16, 4, 16 * 9)
    assert (counts["computed"], counts["cached"]) == (16, 0)
    again = run(stages(), tmp_path / "again", FixedBackend(logprobs))
    assert (again["computed"], again["cached"]) == (0, 16)


def test_rows_are_the_test_candidates_in_their_order(tmp_path: Path) -> None:
    made = stages()
    backend = ScriptedBackend()
    run(made, tmp_path / "score", backend)
    examples = schema.read_table(made.data / "examples.parquet", schema.EXAMPLES).to_pylist()
    test = {row["example_id"] for row in examples if row["split"] == "test"}
    candidates = schema.read_table(made.data / "candidates.parquet", schema.CANDIDATES).to_pylist()
    expected = [(row["example_id"], row["item_id"]) for row in candidates if row["example_id"] in test]
    table = read(tmp_path / "score")
    assert list(zip(table["example_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)) == expected


def test_requests_carry_prompt_image_and_choices(tmp_path: Path) -> None:
    made = stages()
    backend = FixedBackend([(-1.0, -2.0)] * 16)
    run(made, tmp_path / "score", backend)
    items = {row["item_id"]: row for row in schema.read_table(made.data / "items.parquet", schema.ITEMS).to_pylist()}
    for request, item_id in zip(backend.asked, read(tmp_path / "score")["item_id"].to_pylist(), strict=True):
        item = items[item_id]
        assert request.choices == ("Yes", "No")
        assert request.prompt.endswith(f"\nTitle: {item['title'] or '(no title)'}")
        assert [(image.path, image.digest) for image in request.images] == (
            [(made.data / item["image"], item["image_digest"])] if item["image"] else []
        )
    assert {len(request.images) for request in backend.asked} == {0, 1}


def test_spellings_reach_the_model_and_the_words_of_the_log(tmp_path: Path) -> None:
    log, answers = tmp_path / "log", {"yes": ["Ja", "ja", " Ja"], "no": ["Nein"]}
    backend = FixedBackend([(-9.0, -9.0)] * 16)
    run(stages(), tmp_path / "score", backend, QUIET.with_log(log), answers=answers)
    assert {(request.choices, request.also) for request in backend.asked} == {(("Ja", "Nein"), (("ja", " Ja"), ()))}
    assert "Ja and Nein together get" in log.read_text()


def test_without_images_none_is_sent(tmp_path: Path) -> None:
    backend = FixedBackend([(-1.0, -2.0)] * 16)
    run(stages(), tmp_path / "score", backend, images=False)
    assert all(not request.images and "<image>" not in request.prompt for request in backend.asked)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its third shard: what two shards committed is not asked again, and the scores are the same."""
    (tmp_path / "recommend.j2").write_text(ITEM_FIRST)
    made, prompts = write_upstream(tmp_path, candidates=12), Prompts(tmp_path)
    monkeypatch.setattr(answer_stream, "_CHUNK", 8)

    def go(name: str, backend: Backend) -> dict[str, Any]:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        with CompletionCache(tmp_path / f"{name.split('-')[0]}.sqlite") as cache:
            return score(train_config(), made, Client(prompts, backend, cache), Job(tmp_path / name, QUIET))

    class Dying(ScriptedBackend):
        def complete(self, requests: Sequence[Request], *rest: Any) -> list[Completion]:
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().complete(requests, *rest)

    with pytest.raises(KeyboardInterrupt):
        go("killed", Dying())
    assert not (tmp_path / "killed" / "scores.parquet").exists()
    backend = ScriptedBackend()
    counts = go("killed-again", backend)
    assert (counts["cached"], counts["computed"], len(backend.answered)) == (16, 32, 32)
    go("whole", ScriptedBackend())
    assert read(tmp_path / "killed-again").equals(read(tmp_path / "whole"))


class Backwards(ScriptedBackend):
    """A pool that takes every shard before it answers any, and answers the last one first."""

    shards = 0

    def spread(self, jobs: Iterable[ShardJob[Any]]) -> Iterator[tuple[ShardJob[Any], list[Answer]]]:
        drawn = list(jobs)
        self.shards = max(self.shards, len(drawn))
        return ((job, job.shard.run(self, job.report) if job.shard else []) for job in reversed(drawn))


def test_workers_take_the_next_chunk_before_the_last_one_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = run(stages(), tmp_path / "a" / "score", ScriptedBackend(), shard=4)
    monkeypatch.setattr(answer_stream, "_CHUNK", 8)
    backend = Backwards()
    assert run(stages(), tmp_path / "b" / "score", backend, shard=4) == pytest.approx(counts)
    assert read(tmp_path / "a" / "score").equals(read(tmp_path / "b" / "score"))
    assert backend.shards == backend.calls == 4


def test_a_second_run_asks_nothing_again(tmp_path: Path) -> None:
    first, second = ScriptedBackend(), ScriptedBackend()
    run(stages(), tmp_path / "a", first)
    run(stages(), tmp_path / "b", second)
    assert (len(first.answered), second.calls) == (16, 0)
    assert read(tmp_path / "a").equals(read(tmp_path / "b"))


@pytest.mark.parametrize("block", [1, 4, 5, 9, 100])
def test_chunks_and_blocks_do_not_change_the_scores(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = run(stages(), tmp_path / "a" / "score", ScriptedBackend(), shard=4)
    monkeypatch.setattr(answer_stream, "_CHUNK", 3)
    monkeypatch.setattr(scoring_module, "_BLOCK", block)
    assert run(stages(), tmp_path / "b" / "score", ScriptedBackend()) == pytest.approx(counts)
    assert read(tmp_path / "a" / "score").equals(read(tmp_path / "b" / "score"))


ITEM_FIRST = "{% if image %}<image>{% endif %}{{ title }} / {{ user_summary }}"


def test_items_first_are_asked_item_by_item_and_written_in_the_order_of_the_candidates(tmp_path: Path) -> None:
    (tmp_path / "recommend.j2").write_text(ITEM_FIRST)
    made, backend = write_upstream(tmp_path, candidates=12), ScriptedBackend()
    (tmp_path / "score").mkdir()
    with CompletionCache(tmp_path / "completions.sqlite") as cache:
        client = Client(Prompts(tmp_path), backend, cache)
        counts = score(train_config(), made, client, Job(tmp_path / "score", QUIET))
    assert counts["order"] == "items"
    rows = list(CandidateRows(made.data, made.users, Prompts(tmp_path), "test", images=True))
    requests = [Request(backend.identity, row.prompt, (row.image,) if row.image else (), ("Yes", "No")) for row in rows]
    item_of = {request.key: row.item_id for request, row in zip(requests, rows, strict=True)}
    asked = [item_of[key] for key in backend.answered]
    assert asked == sorted(asked)
    table = read(tmp_path / "score")
    assert table["example_id"].to_pylist() == [row.example_id for row in rows]
    assert table["item_id"].to_pylist() == [row.item_id for row in rows]
    expected = [np.subtract(*answer.choice_logprobs) for answer in backend.complete(requests)]
    assert table["logit"].to_pylist() == pytest.approx(expected)


def test_users_first_stay_as_they_are(tmp_path: Path) -> None:
    assert run(stages(), tmp_path / "score", ScriptedBackend())["order"] == "users"


@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 11, 100])
def test_blocks_are_whole_examples_and_lose_no_row(size: int) -> None:
    made = stages()
    whole = CandidateRows(made.data, made.users, Prompts(), "test", images=True)
    blocks = list(candidate_blocks(CandidateFolders(made.data, made.users), Prompts(), "test", images=True, size=size))
    assert [row for block in blocks for row in block] == list(whole)
    assert all(len(block) % 4 == 0 and len(block) <= max(4, size) for block in blocks)
    assert count_rows(made.data, "test") == len(whole)


def test_what_was_processed_is_counted_and_said(tmp_path: Path) -> None:
    made, log = stages(), tmp_path / "log"
    counts = run(made, tmp_path / "score", make_backend(model_ref()), QUIET.with_log(log))
    assert counts["tokens_least"] <= counts["tokens_planned"] < counts["tokens_flat"] == counts["tokens_in"]
    assert counts["images_encoded"] == counts["images_distinct"] <= counts["images_shown"]
    assert (
        f"{counts['tokens_processed']:,} tokens processed for {counts['tokens_flat']:,} of prompts" in log.read_text()
    )
    again = run(made, tmp_path / "again", make_backend(model_ref()))
    assert again["computed"] == again.get("tokens_processed", 0) == 0


def test_a_model_that_would_rather_say_something_else_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    logprobs = [(math.log(0.2), math.log(0.1))] * 3 + [(math.log(0.5), math.log(0.4))] * 13
    counts = run(stages(), tmp_path / "score", FixedBackend(logprobs), QUIET.with_log(log))
    assert counts["rather_something_else"] == 3
    assert "for 3 of 16 candidates the model would rather say something else than Yes and No" in log.read_text()


def test_a_missing_answer_is_an_error_with_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(
        self: CompletionCache, backend: Backend, batches: Iterable[Sequence[Request]], **_: Any
    ) -> Iterator[list[Completion]]:
        for requests in batches:
            odds = [() if number < 2 else (-1.0, -1.0) for number in range(len(requests))]
            yield [Completion(r.key, "", o, "choice", 1, 0) for r, o in zip(requests, odds, strict=True)]

    monkeypatch.setattr(CompletionCache, "stream", forgetful)
    with pytest.raises(StageError, match="2 of 16 candidates were not answered"):
        run(stages(), tmp_path / "score", ScriptedBackend())
    assert not (tmp_path / "score" / "scores.parquet").exists()


def test_a_sick_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no finite .* 16 of 16"):
        run(stages(), tmp_path / "score", FixedBackend([(math.nan, -1.0)] * 16))


def test_no_test_candidates_is_the_users_fault(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    table = schema.read_table(made.data / "examples.parquet", schema.EXAMPLES)
    rows = [row for row in table.to_pylist() if row["split"] != "test"]
    schema.write_table(pa.Table.from_pylist(rows, schema.EXAMPLES), schema.EXAMPLES, made.data / "examples.parquet")
    with pytest.raises(UserError, match="no test candidates"):
        run(made, tmp_path / "score", ScriptedBackend())


def test_what_a_reader_should_doubt_is_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    backend = FixedBackend([(-9.0, -9.0)] * 16, tokens_in=2048)
    counts = run(stages(), tmp_path / "score", backend, QUIET.with_log(log))
    assert counts["prompts_over_cutoff"] == 16
    assert "16 of 16 prompts have 2048 tokens or more" in log.read_text()
    assert "Yes and No together get 0.0%" in log.read_text()


def test_training_changes_the_scores_and_reloading_does_not(tmp_path: Path) -> None:
    made, model = stages(), model_ref()
    backends = {
        "base": make_backend(model),
        "lora": make_backend(model, trained_weights(trained("lora").out)),
        "full": make_backend(model, trained_weights(trained("full").out)),
        "lora-again": make_backend(model, trained_weights(trained("lora").out)),
    }
    for name, backend in backends.items():
        run(made, tmp_path / name / "score", backend)
    scores = {name: np.array(read(tmp_path / name / "score")["logit"]) for name in backends}
    mass = {name: np.array(read(tmp_path / name / "score")["answer_mass"]) for name in backends}
    assert np.abs(scores["lora"] - scores["base"]).max() > 1e-3
    assert np.abs(scores["full"] - scores["base"]).max() > 1e-3
    assert np.array_equal(scores["lora"], scores["lora-again"])
    # Three steps teach a random model at least to say Yes or No more often.
    assert mass["lora"].mean() > mass["base"].mean()
    assert mass["full"].mean() > mass["base"].mean()
