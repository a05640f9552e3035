import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.errors import StageError
from msr_adapter.generation import Answer, Completion, CompletionCache, Follow, Image, Request, ends_there
from msr_adapter.generation.request_shards import ShardJob
from tests.support.recording import Recording


def ask(number: int) -> Request:
    return Request("model", f"prompt {number}", max_new_tokens=8)


def sizes(backend: Recording) -> list[int]:
    return [len(call) for call in backend.calls]


def test_answers_come_in_request_order_and_duplicates_are_asked_once(tmp_path: Path) -> None:
    backend = Recording()
    requests = [ask(number) for number in (3, 1, 3, 2, 1)]
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        answers = cache.complete(backend, requests)
        assert cache.stats == (0, 3, 0)
    assert [answer.key for answer in answers] == [request.key for request in requests]
    assert [answer.text for answer in answers] == [f"answer to prompt {number}" for number in (3, 1, 3, 2, 1)]
    assert backend.prompts == ["prompt 3", "prompt 1", "prompt 2"]


def test_a_second_run_computes_nothing_and_gets_the_same_completions(tmp_path: Path) -> None:
    requests = [Request("m", "é ∀ 🙂", (Image(tmp_path, "d"),), ("Yes", "No")), ask(1)]
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        first = cache.complete(Recording(), requests)
    backend = Recording()
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        assert cache.complete(backend, requests) == first
        assert cache.stats == (2, 0, 0)
    assert first[0].choice_logprobs == (-1.0, -2.0)
    assert backend.calls == []


def test_shards_are_slices_of_the_distinct_requests_whatever_is_cached(tmp_path: Path) -> None:
    requests = [ask(number) for number in range(10)]
    with CompletionCache(tmp_path / "c.sqlite", shard_requests=4) as cache:
        cache.complete(Recording(), [ask(number) for number in (0, 1, 2, 3, 5)])
        backend = Recording()
        cache.complete(backend, requests)
    asked = [[request.prompt for request in call] for call in backend.calls]
    assert asked == [["prompt 4", "prompt 6", "prompt 7"], ["prompt 8", "prompt 9"]]


def test_a_failing_shard_keeps_the_shards_before_it_and_nothing_of_itself(tmp_path: Path) -> None:
    class Failing(Recording):
        def complete(self, requests: list[Request], *rest: Any) -> list[Completion]:  # type: ignore[override]
            if len(self.calls) == 2:
                raise MemoryError
            return super().complete(requests)

    requests = [ask(number) for number in range(10)]
    with CompletionCache(tmp_path / "c.sqlite", shard_requests=3) as cache:
        with pytest.raises(MemoryError):
            cache.complete(Failing(), requests)
        backend = Recording()
        cache.complete(backend, requests)
    assert [request.prompt for request in backend.calls[0]] == ["prompt 6", "prompt 7", "prompt 8"]
    assert sizes(backend) == [3, 1]


def test_advance_sums_to_the_number_of_requests(tmp_path: Path) -> None:
    steps: list[int] = []
    with CompletionCache(tmp_path / "c.sqlite", shard_requests=2) as cache:
        cache.complete(Recording(), [ask(n) for n in (1, 1, 2, 3, 1, 3)], advance=steps.append)
    assert steps == [1, 1, 2, 1, 1]  # as each is answered; those that equal it come with the end of its shard
    assert sum(steps) == 6


def test_progress_does_not_wait_for_the_end_of_a_shard(tmp_path: Path) -> None:
    steps: list[int] = []
    seen: list[int] = []

    class OneByOne(Recording):
        def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Completion]:
            answers = []
            for request in requests:
                answers.append(self._answer(request))
                follow(answers[-1])
                seen.append(sum(steps))
            return answers

    with CompletionCache(tmp_path / "c.sqlite") as cache:
        cache.complete(OneByOne(), [ask(number) for number in range(50)], advance=steps.append)
        assert seen == list(range(1, 51))
        cache.complete(OneByOne(), [ask(number) for number in range(60)], advance=steps.append)
    assert sum(steps) == 110


def test_batches_are_answered_in_their_order_and_drawn_one_by_one(tmp_path: Path) -> None:
    backend, drawn = Recording(), list[int]()

    def batches() -> Iterator[list[Request]]:
        for start in (0, 4, 4, 2):
            drawn.append(start)
            yield [ask(number) for number in range(start, start + 3)] if start else []

    with CompletionCache(tmp_path / "c.sqlite", shard_requests=2) as cache:
        answers = cache.stream(backend, batches())
        assert next(answers) == []
        assert [answer.text for answer in next(answers)] == [f"answer to prompt {number}" for number in (4, 5, 6)]
        assert drawn == [0, 4]
        assert [len(found) for found in answers] == [3, 3]
        assert cache.stats == (4, 5, 0)
    assert sizes(backend) == [2, 1, 2]


class Backwards(Recording):
    """A pool that takes every shard before it answers any, and answers the last one first."""

    def spread(self, jobs: Iterable[ShardJob[Any]]) -> Iterator[tuple[ShardJob[Any], list[Answer]]]:
        return ((job, job.shard.run(self, job.report) if job.shard else []) for job in reversed(list(jobs)))


def test_what_a_batch_under_way_asks_is_not_asked_by_the_next_ones(tmp_path: Path) -> None:
    backend, steps = Backwards(), list[int]()
    batches = [[ask(number) for number in numbers] for numbers in ([1, 2, 3], [3, 4, 1, 3], [1, 3], [5])]
    with CompletionCache(tmp_path / "c.sqlite", shard_requests=2) as cache:
        answers = list(cache.stream(backend, batches, advance=steps.append))
        assert cache.stats == (4, 5, 0)
    assert [[answer.key for answer in batch] for batch in answers] == [[r.key for r in batch] for batch in batches]
    assert sorted(backend.prompts) == [f"prompt {number}" for number in range(1, 6)]
    assert sum(steps) == 10


def test_no_requests_no_calls(tmp_path: Path) -> None:
    backend = Recording()
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        assert cache.complete(backend, []) == []
    assert backend.calls == []


def test_a_shard_beyond_the_variable_limit_of_sqlite(tmp_path: Path) -> None:
    requests = [ask(number) for number in range(2_500)]
    with CompletionCache(tmp_path / "c.sqlite", shard_requests=2_500) as cache:
        answers = cache.complete(Recording(), requests)
        again = cache.complete(Recording(), requests)
    assert [answer.key for answer in answers] == [request.key for request in requests]
    assert again == answers


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), max_size=20), max_size=4), st.integers(1, 5))
def test_over_any_runs_each_request_is_computed_once(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[int]], shard: int
) -> None:
    path = tmp_path_factory.mktemp("cache") / "c.sqlite"
    backend = Recording()
    for run in runs:
        with CompletionCache(path, shard_requests=shard) as cache:
            answers = cache.complete(backend, [ask(number) for number in run])
        assert [answer.text for answer in answers] == [f"answer to prompt {number}" for number in run]
    assert sorted(backend.prompts) == sorted({f"prompt {number}" for run in runs for number in run})
    assert all(size <= shard for size in sizes(backend))


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: a[::-1], lambda a: [*a, a[0]]])
def test_wrong_answers_are_refused_and_not_kept(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    class Wrong(Recording):
        def complete(self, requests: list[Request], *rest: Any) -> list[Completion]:  # type: ignore[override]
            return list(change(super().complete(requests)))

    backend = Recording()
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        with pytest.raises(ValueError, match="answers to 2 requests"):
            cache.complete(Wrong(), [ask(1), ask(2)])
        cache.complete(backend, [ask(1), ask(2)])
    assert sizes(backend) == [2]


@pytest.mark.parametrize("number", [math.nan, -math.inf])
def test_numbers_that_are_not_finite_are_refused_and_not_kept(tmp_path: Path, number: float) -> None:
    class Sick(Recording):
        def complete(self, requests: list[Request], *rest: Any) -> list[Completion]:  # type: ignore[override]
            return [Completion(request.key, "", (number, -1.0), "choice", 1, 1) for request in requests]

    request = Request("m", "p", choices=("Yes", "No"))
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        with pytest.raises(StageError, match=r"no finite log-probability for 1 of 1(.|\n)*learning rate"):
            cache.complete(Sick(), [request])
        cache.complete(backend := Recording(), [request])
    assert sizes(backend) == [1]


def test_choices_without_their_numbers_are_refused(tmp_path: Path) -> None:
    class Short(Recording):
        def complete(self, requests: list[Request], *rest: Any) -> list[Completion]:  # type: ignore[override]
            return [Completion(request.key, "", (-1.0,), "choice", 1, 1) for request in requests]

    with CompletionCache(tmp_path / "c.sqlite") as cache, pytest.raises(ValueError, match="1 log-probabilities"):
        cache.complete(Short(), [Request("m", "p", choices=("Yes", "No"))])


def test_entries_of_another_schema_version_are_ignored_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE completions_0 (key BLOB PRIMARY KEY, text TEXT)")
        other.execute("INSERT INTO completions_0 VALUES (?, 'old')", (bytes.fromhex(ask(1).key),))
    other.close()
    with CompletionCache(path) as cache:
        assert cache.complete(Recording(), [ask(1)])[0].text == "answer to prompt 1"
    other = sqlite3.connect(path)
    assert other.execute("SELECT text FROM completions_0").fetchall() == [("old",)]
    other.close()


def test_a_damaged_file_is_named_and_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"this is no database at all, but long enough to look like one" * 40)
    before = path.read_bytes()
    with pytest.raises(StageError, match=r"c\.sqlite(.|\n)*damaged(.|\n)*move it away"):
        CompletionCache(path)
    assert path.read_bytes() == before


def test_a_page_damaged_later_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    requests = [ask(number) for number in range(500)]
    with CompletionCache(path) as cache:
        cache.complete(Recording(), requests)
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = b"\xff" * (len(data) - 4096)
    path.write_bytes(bytes(data))
    with CompletionCache(path) as cache, pytest.raises(StageError, match="damaged"):
        cache.complete(Recording(), requests)


def test_a_path_that_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").mkdir()
    with pytest.raises(StageError, match=r"c\.sqlite(.|\n)*--run-dir"):
        CompletionCache(tmp_path / "c.sqlite")


def test_a_file_held_by_another_process_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.generation.completion_store._BUSY_MS", 10)
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        other = sqlite3.connect(tmp_path / "c.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StageError, match=r"another process holds the file(.|\n)*run again"):
            cache.complete(Recording(), [ask(1)])
        other.execute("ROLLBACK")
        other.close()
        assert cache.complete(Recording(), [ask(1)])[0].text == "answer to prompt 1"


def test_shard_must_be_positive(tmp_path: Path) -> None:
    for sizes in ({"shard_requests": 0}, {"shard_chains": 0}):
        with pytest.raises(ValueError, match="at least 1 request or chain, not 0"):
            CompletionCache(tmp_path / "c.sqlite", **sizes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "other",
    [
        Request("other", "p", (), ("Yes", "No"), 4),
        Request("m", "other", (), ("Yes", "No"), 4),
        Request("m", "p", (Image(Path("a"), "d"),), ("Yes", "No"), 4),
        Request("m", "p", (), ("No", "Yes"), 4),
        Request("m", "p", (), ("Yes", "No"), 5),
    ],
)
def test_the_key_covers_everything_that_can_change_the_answer(other: Request) -> None:
    assert other.key != Request("m", "p", (), ("Yes", "No"), 4).key


def test_the_key_ignores_where_an_image_lies() -> None:
    assert Request("m", "p", (Image(Path("a"), "d"),)).key == Request("m", "p", (Image(Path("b"), "d"),)).key
