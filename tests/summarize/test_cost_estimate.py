"""What is said before a summariser asks anything, and of how alike its answers are."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import ItemSummariesConfig, ModelConfig
from msr_adapter.generation import CompletionCache
from msr_adapter.progress import Meter, Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.summarize import plan_items
from msr_adapter.summarize.cost_estimate import CostEstimate, Counter, estimate_cost, spaced
from tests.summarize.test_users import TITLES, letters, write
from tests.summarize.test_users import config as users_config
from tests.summarize.test_users import run as run_users
from tests.support.recording import Recording
from tests.support.summaries import write_shop
from tests.support.tiny_run import flat_stages

SCRIPTED = ModelConfig(path="nobody", backend="scripted")


def test_places_are_spaced_evenly() -> None:
    assert spaced(10, 3) == [0, 3, 6]
    assert spaced(2, 5) == [0, 1]
    assert spaced(0, 5) == []


def estimated(folder: Path, mode: str, cache: CompletionCache) -> CostEstimate:
    config = ItemSummariesConfig.model_validate({"model": SCRIPTED, "mode": mode, "max_new_tokens": 9})
    starts = plan_items(config, flat_stages(folder), Prompts(), "recording")[1]
    return estimate_cost(starts, cache.lookup, SCRIPTED, 9)


@pytest.mark.parametrize(("mode", "distinct"), [("image", 4), ("fusion", 2 * 3 + 1 + 1)])
def test_calls_are_the_distinct_requests_at_most(tmp_path: Path, mode: str, distinct: int) -> None:
    # Two items alike in words, without an image; one without words.
    write_shop(tmp_path, {"a": "A", "b": "B", "c": "C", "d": "C", "e": ""}, ["abcde"], no_image="cd")
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        found = estimated(tmp_path, mode, cache)
    assert (found.calls, found.cached, found.to_ask) == (distinct, 0, distinct)
    assert (found.answer_tokens, found.answer_tokens_most) == (None, 9 * distinct)
    assert 0 < found.prompt_tokens <= found.prompt_tokens_most


def test_an_image_that_cannot_be_read_is_not_counted(tmp_path: Path) -> None:
    write_shop(tmp_path, {"a": "A"}, ["a"])
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        assert estimated(tmp_path, "image", cache).counted.endswith("; images not counted")
        assert "1 requests at most" in estimated(tmp_path, "image", cache).line("items")


@settings(max_examples=12, deadline=None)
@given(st.lists(st.text("abcdefgh", max_size=8), min_size=1, max_size=6), st.integers(1, 4))
def test_the_outlook_of_users_bounds_what_is_asked(
    tmp_path_factory: pytest.TempPathFactory, histories: list[str], block: int
) -> None:
    folder = tmp_path_factory.mktemp("estimate")
    write(folder, histories, TITLES)
    _, counts, _ = run_users(folder, Recording(letters), users_config(block=block))
    # Letters keep all that was read, so that unlike beginnings have unlike answers.
    assert counts["estimate"]["calls"] == counts["estimate"]["to_ask"] == counts["distinct_requests"]
    assert counts["estimate"]["cached"] == 0
    _, again, _ = run_users(folder, Recording(letters), users_config(block=block))
    assert (again["estimate"]["to_ask"], again["estimate"]["cached"]) == (0, counts["distinct_requests"])


def test_nothing_is_left_to_ask_of_chains_that_have_met(tmp_path: Path) -> None:
    # Whatever is read, one answer: from their second block on, all users make the same requests.
    write(tmp_path, ["abcdefgh", "cdabefgh", "efcdabgh", "ab"], TITLES)
    _, counts, _ = run_users(tmp_path, Recording(lambda _: "the same"), users_config(block=2))
    assert counts["distinct_requests"] < counts["estimate"]["calls"]
    _, again, notes = run_users(tmp_path, Recording(lambda _: "the same"), users_config(block=2))
    told = again["estimate"]
    assert told["calls"] == told["cached"] == counts["distinct_requests"]
    assert (told["to_ask"], told["prompt_tokens"], told["prompt_tokens_most"], told["answer_tokens_most"]) == (0,) * 4
    assert "to ask" not in notes


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("abcd", max_size=8), min_size=1, max_size=6), st.integers(1, 3), st.data())
def test_what_is_left_bounds_what_is_then_asked(
    tmp_path_factory: pytest.TempPathFactory, histories: list[str], block: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("left")
    answer = data.draw(st.sampled_from([letters, lambda _: "the same", lambda prompt: letters(prompt)[-1:]]))
    write(folder, histories[: data.draw(st.integers(0, len(histories)))] or ["a"], TITLES)
    run_users(folder, Recording(answer), users_config(block=block))
    write(folder, histories, TITLES)
    _, counts, _ = run_users(folder, Recording(answer), users_config(block=block))
    assert counts["computed"] <= counts["estimate"]["to_ask"]
    assert 0 <= counts["cached"] <= counts["distinct_requests"] <= counts["estimate"]["calls"]
    _, again, _ = run_users(folder, Recording(answer), users_config(block=block))
    assert (again["estimate"]["to_ask"], again["computed"]) == (0, 0)


def test_known_answers_say_how_long_the_others_may_be(tmp_path: Path) -> None:
    write(tmp_path, ["abc"])
    run_users(tmp_path, Recording(letters), users_config())
    write(tmp_path, ["abcdef", "gh"])
    _, counts, notes = run_users(tmp_path, Recording(letters), users_config())
    told = counts["estimate"]
    assert (told["calls"], told["cached"], told["to_ask"]) == (3, 1, 2)
    assert (told["answer_tokens"], told["answer_tokens_most"]) == (6, 256)  # "ABC" has three
    assert "to ask 2: about" in notes


def test_tokens_are_counted_without_the_placeholder() -> None:
    counter = Counter(ModelConfig(path="tiny", default_system=""))
    assert counter.text("<image>likes") == counter.text("likes") < counter.text("likes dragons")
    assert counter.images(()) == 0


def test_the_pace_of_what_is_computed_tells_how_long_the_rest_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("msr_adapter.progress.time.monotonic", lambda: now[0])
    meter, reporter = Meter(), Reporter(quiet=True, log=tmp_path / "log")
    with reporter.track("summaries", 1_000, meter) as advance:
        advance(400)  # known before: they say nothing of the pace
        assert meter.pace() == ""
        for _ in range(80):
            now[0] += 0.5
            meter.add(10)
            advance(1)
    lines = [line.split(" ", 2)[2] for line in (tmp_path / "log").read_text().splitlines()]
    # 32 answers took 16 s, so the 568 that are left take 284 s; after 60 answers, the 540 that are left take 270 s.
    assert lines == [
        "summaries: about 5 min for what is left, by the first answers",
        "summaries: 460/1000, 20 tokens/s, about 4 min left",
        "summaries: 480/1000 in 40.0 s",
    ]


def test_short_work_is_not_told_how_short_it_is(tmp_path: Path) -> None:
    meter, reporter = Meter(), Reporter(quiet=True, log=tmp_path / "log")
    with reporter.track("summaries", 40, meter) as advance:
        for _ in range(40):
            meter.add(3)
            advance(1)
    assert "left" not in (tmp_path / "log").read_text()
