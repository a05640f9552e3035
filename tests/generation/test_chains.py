"""Chains in shards: who shares one, what is asked once, and what a rerun asks."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.generation import Answer, Chain, Completion, CompletionCache, Failure, Request
from msr_adapter.generation.request_chains import Chains, shards
from msr_adapter.prompts import HistoryItem, Prompts
from tests.support.recording import Recording


@dataclass(frozen=True)
class Spelled:
    """Asks for each letter of a word after what was answered before; goes on past failures."""

    word: str

    def __call__(self) -> Chain[str]:
        text = ""
        for letter in self.word:
            answer: Answer = yield Request("m", f"{text}+{letter}", max_new_tokens=9)
            text = answer.text if isinstance(answer, Completion) else text
        return text


def spell(request: Request) -> str:
    return request.prompt.replace("+", "")


class Failing(Recording):
    """Fails on one prompt."""

    def __init__(self, bad: str) -> None:
        super().__init__(spell)
        self.bad = bad

    def _answer(self, request: Request) -> Answer:  # type: ignore[override]
        return Failure(request.key, "no") if request.prompt == self.bad else super()._answer(request)


def run_chains(path: Path, backend: Recording, words: Sequence[str], shard: int, families: bool = True) -> list[str]:
    kin = [word[:1] for word in words] if families else None
    with CompletionCache(path, shard_chains=shard) as cache:
        ended = dict(cache.run_chains(backend, [Spelled(word) for word in words], families=kin))
    return [ended[place] for place in range(len(words))]


@settings(max_examples=30)
@given(st.lists(st.text("abc", max_size=4), max_size=25), st.integers(1, 6))
def test_every_chain_ends_and_every_request_is_asked_once(
    tmp_path_factory: object, words: list[str], shard: int
) -> None:
    path = tmp_path_factory.mktemp("chains") / "c.sqlite"  # type: ignore[attr-defined]
    backend = Recording(spell)
    assert run_chains(path, backend, words, shard) == words
    expected = {word[:end] for word in words for end in range(1, len(word) + 1)}
    assert sorted(backend.prompts) == sorted(f"{prefix[:-1]}+{prefix[-1]}" for prefix in expected)
    assert run_chains(path, again := Recording(spell), words, shard) == words
    assert again.calls == []


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 9))
def test_families_stay_together_unless_they_are_larger_than_a_shard(families: list[int], size: int) -> None:
    parts, cut = shards(families, size)
    assert sorted(place for part in parts for place in part) == list(range(len(families)))
    assert all(0 < len(part) <= size for part in parts)
    for family in set(families):
        holders = [part for part in parts if any(families[place] == family for place in part)]
        assert len(holders) == -(-families.count(family) // size) or families.count(family) > size
    assert {families[place] for place in cut} == {f for f in set(families) if families.count(f) > size}


def test_what_a_large_family_begins_with_is_asked_before_its_shards(tmp_path: Path) -> None:
    words = [f"a{letter}" for letter in "bcdefg"] + ["b", ""]
    backend = Recording(spell)
    assert run_chains(tmp_path / "c.sqlite", backend, words, 2) == words
    assert [request.prompt for request in backend.calls[0]] == ["+a"]
    assert len(backend.prompts) == len(set(backend.prompts)) == 8


def test_what_was_answered_after_a_failure_is_not_asked_again_when_it_fails_again(tmp_path: Path) -> None:
    first, second, third = Failing("a+b"), Failing("a+b"), Failing("")
    assert run_chains(tmp_path / "c.sqlite", first, ["abcd"], 2) == ["acd"]
    assert first.prompts == ["+a", "a+b", "a+c", "ac+d"]
    assert run_chains(tmp_path / "c.sqlite", second, ["abcd"], 2) == ["acd"]
    assert second.prompts == ["a+b"]
    assert run_chains(tmp_path / "c.sqlite", third, ["abcd"], 2) == ["abcd"]
    assert third.prompts == ["a+b", "ab+c", "abc+d"]


def test_progress_counts_every_answer_of_every_chain(tmp_path: Path) -> None:
    steps: list[int] = []
    with CompletionCache(tmp_path / "c.sqlite", shard_chains=2) as cache:
        words = [Spelled(word) for word in ("abc", "abd", "ab", "x")]
        list(cache.run_chains(Recording(spell), words, advance=steps.append))
        assert (sum(steps), min(steps)) == (9, 1)
        steps.clear()
        list(cache.run_chains(Recording(spell), words, advance=steps.append))
    assert sum(steps) == 9


def test_chains_that_do_not_depend_on_their_answers_alone_are_refused(tmp_path: Path) -> None:
    told = iter("abcdefgh")

    def fickle() -> Chain[None]:
        yield Request("m", next(told), max_new_tokens=1)

    with CompletionCache(tmp_path / "c.sqlite") as cache, pytest.raises(ValueError, match="do not depend"):
        list(cache.run_chains(Recording(), [fickle]))


def test_a_chain_moves_on_what_is_known() -> None:
    start = Spelled("ab")
    first = next(start())
    chains = Chains([start, start], [Completion(first.key, "a", (), "stop", 1, 1)])
    assert [request.prompt for request in chains.waiting()] == ["a+b"]
    assert (chains.stuck(), chains.sent) == ([0, 1], 2)


def test_prompts_travel_with_their_templates(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "user_summary.j2").write_text("{% include 'part.j2' %} {{ previous }}{{ items | length }}")
    (mine / "part.j2").write_text("Mine:")
    here = Prompts(mine)
    packed = pickle.dumps(here)
    items = [HistoryItem("A"), HistoryItem("B")]
    expected, digest = here.user_summary("so far", items), here.digest("user_summary")
    for path in mine.iterdir():
        path.unlink()
    there = pickle.loads(packed)
    assert there.user_summary("so far", items) == expected == "Mine: so far2"
    assert there.digest("user_summary") == digest
    assert there.item_summary("T", True) == Prompts().item_summary("T", True)
