"""Rows of the cache that are not what was stored are dropped and asked again; impossible answers never enter it."""

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from msr_adapter.errors import StageError
from msr_adapter.generation import Completion, CompletionCache, Failure, Request
from msr_adapter.generation.completion_store import CompletionStore
from msr_adapter.generation.request import why_impossible
from tests.support.recording import Recording

ASKED = [Request("model", f"prompt {number}", max_new_tokens=8) for number in range(20)]


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


@pytest.mark.parametrize("change", [
    "text = 'another answer'", "text = CAST(x'ff' AS TEXT)", "choice_logprobs = x'00'", "finish_reason = 'length'",
    "tokens_in = 7", "tokens_in = 'many'", "created = 3", "model = 9", "checksum = x'00'",
])  # fmt: skip
def test_a_changed_row_is_dropped_and_asked_again_and_said_once(change: str, tmp_path: Path) -> None:
    path, said, backend = tmp_path / "c.sqlite", list[str](), Recording()
    with CompletionCache(path) as cache:
        first = cache.complete(Recording(), ASKED)
    key = ASKED[3].key
    edit(path, f"UPDATE completions_3 SET {change} WHERE key = x'{key}'")
    with CompletionCache(path, note=said.append) as cache:
        assert cache.complete(backend, ASKED) == first
    assert backend.prompts == ["prompt 3"]
    assert said == [f"{path}: 1 damaged completion dropped and asked again"]
    with CompletionCache(path, note=said.append) as cache:
        assert cache.complete(Recording(), ASKED) == first
    assert len(said) == 1


def test_every_flipped_bit_of_the_rows_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with CompletionCache(path) as cache:
        first = cache.complete(Recording(), ASKED)
    edit(path, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode=DELETE")
    data, again = path.read_bytes(), 0
    start = data.index(b"answer to prompt") - 60
    for place in range(start, len(data), max(1, (len(data) - start) // 150)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        copy = tmp_path / f"{place}.sqlite"
        copy.write_bytes(flipped)
        backend = Recording()
        try:
            with CompletionCache(copy) as cache:
                assert cache.complete(backend, ASKED) == first, place
            again += bool(backend.prompts)
        except StageError as error:
            assert "move it away" in str(error)  # noqa: PT017 - either is well
    assert again > 10


def test_a_cache_without_checksums_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with CompletionCache(path) as cache:
        first = cache.complete(Recording(), ASKED)
    columns = "key, text, choice_logprobs, finish_reason, tokens_in, tokens_out, model, created"
    edit(path, f"CREATE TABLE completions_2 AS SELECT {columns} FROM completions_3", "DROP TABLE completions_3")
    backend = Recording()
    with CompletionCache(path) as cache:
        assert cache.complete(backend, ASKED) == first
    assert backend.calls == []
    with closing(sqlite3.connect(path)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"models_2", "completions_3", "failures_2"}


def test_an_export_leaves_damaged_rows_out(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with CompletionCache(path) as cache:
        cache.complete(Recording(), ASKED)
    edit(path, "UPDATE completions_3 SET text = 'x' WHERE tokens_in >= 0 AND key = "
               f"x'{ASKED[0].key}'")  # fmt: skip
    with closing(CompletionStore(path)) as store:
        assert len(list(store.entries())) == len(ASKED) - 1
        assert store.dropped == 1


def test_a_file_that_lacks_columns_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    CompletionCache(path).close()
    edit(path, "DROP TABLE completions_3", "CREATE TABLE completions_3 (key BLOB)")
    with CompletionCache(path) as cache, pytest.raises(StageError, match=r"damaged(.|\n)*move it away"):
        cache.complete(Recording(), ASKED)


class Fixed(Recording):
    """Gives the same numbers to every question."""

    def __init__(self, *logprobs: float) -> None:
        super().__init__()
        self.logprobs = logprobs

    def complete(self, requests: list[Request], follow: Callable[..., object] = lambda _: ()) -> list[Completion]:  # type: ignore[override]
        return [Completion(request.key, "", self.logprobs, "choice", 1, 0) for request in requests]


@pytest.mark.parametrize(("logprobs", "said"), [
    ((0.5, -3.0), "a log-probability is 0.5, above 0"), ((-0.1, -0.1), "sum to 1.81"),
])  # fmt: skip
def test_impossible_probabilities_are_failures_and_not_kept(
    logprobs: tuple[float, ...], said: str, tmp_path: Path
) -> None:
    asked = [Request("model", "Will they?", choices=("Yes", "No"))]
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        [answer] = cache.attempt(Fixed(*logprobs), asked)
        assert isinstance(answer, Failure)
        assert "impossible probabilities" in answer.reason
        assert said in answer.reason
        assert cache.stats.failed == 1
        assert cache.known([asked[0].key]) == set()
        with pytest.raises(StageError, match="1 of 1 request failed, first: impossible probabilities"):
            cache.complete(Fixed(*logprobs), asked)


@pytest.mark.parametrize("logprobs", [(), (0.0, -50.0), (math.log(0.5), math.log(0.5)), (1e-4, -9.0), (-math.inf, -1)])
def test_possible_probabilities_pass(logprobs: tuple[float, ...]) -> None:
    assert why_impossible(logprobs) == ""
