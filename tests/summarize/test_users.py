import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import ModelConfig, UserSummariesConfig
from msr_adapter.generation import CompletionCache, Request
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.schema import USER_STEPS, USER_SUMMARIES, read_table
from msr_adapter.stage_arguments import Client, Job
from msr_adapter.summarize import summarize_users
from tests.support.paths import ROOT
from tests.support.recording import Recording
from tests.support.summaries import Lines, write_shop, write_summaries
from tests.support.tiny_run import flat_stages

TITLES = {letter: letter.upper() for letter in "abcdefgh"}


def config(mode: str = "recurrent", block: int = 3) -> UserSummariesConfig:
    return UserSummariesConfig.model_validate({"model": ModelConfig(path="tiny"), "mode": mode, "block": block})


def write(folder: Path, histories: Sequence[str], titles: Mapping[str, str] = TITLES, summary: str = "") -> None:
    """Write the inputs of the stage; a history is written as its item letters."""
    write_shop(folder, titles, [list(history) for history in histories])
    write_summaries(folder / "items", {item: summary and f"{summary} {item}" for item in titles})


def run(
    folder: Path, backend: Recording | None, settings: UserSummariesConfig
) -> tuple[list[str], dict[str, Any], str]:
    reporter = Lines()
    with CompletionCache(folder / "c.sqlite") as cache:
        client, job = Client(Prompts(), backend, cache), Job(folder / "out", reporter)
        counts = summarize_users(settings, flat_stages(folder), client, job)
    table = read_table(folder / "out" / "users.parquet", USER_SUMMARIES)
    assert table["example_id"].to_pylist() == list(range(table.num_rows))
    return table["summary"].to_pylist(), counts, reporter.text


def letters(request: Request) -> str:
    """Answer with all letters ever read: earlier summary first, then this block's titles."""
    first, *lines = request.prompt.splitlines()
    earlier = first.split(": ")[1] if "so far" in first else ""
    return earlier + "".join(line.split(". ")[1][0] for line in lines if line[0].isdigit())


def test_seven_items_at_block_three_are_read_in_three_steps(tmp_path: Path) -> None:
    write(tmp_path, ["abcdefg"], summary="about")
    backend = Recording(letters)
    texts, counts, _ = run(tmp_path, backend, config())
    ask = "Answer with the summary alone."
    update = (
        "Update the summary of the user's preferences. Keep what still holds, add what is new, and give the latest "
        f"choices more weight. {ask}"
    )
    assert backend.prompts == [
        "A user chose, in this order:\n1. A - about a\n2. B - about b\n3. C - about c\n"
        f"Summarise the user's preferences: topics, style and mood they look for. {ask}",
        "A user's preferences so far: ABC\nSince then the user chose, in this order:\n"
        f"1. D - about d\n2. E - about e\n3. F - about f\n{update}",
        f"A user's preferences so far: ABCDEF\nSince then the user chose, in this order:\n1. G - about g\n{update}",
    ]
    assert texts == ["ABCDEFG"]
    assert (counts["steps"], counts["requests"], counts["computed"]) == (3, 3, 3)


def test_faults_of_the_last_answers_are_counted_and_said(tmp_path: Path) -> None:
    titles = {letter: f"{letter * 4} of the great {letter * 5} river" for letter in "abcdefgh"}
    write(tmp_path, ["abcd", "efgh", "abc", "fgh"], titles)

    def answer(request: Request) -> str:
        if "so far" not in request.prompt:
            return "Tractors and harvests." if "dddd" not in request.prompt else "Ships."
        listed = request.prompt.splitlines()[2].partition(". ")[2]
        return f"1. {listed}" if "dddd" in listed else "Harvests and trains."

    _, counts, said = run(tmp_path, Recording(answer), config())
    # Of four last answers two are first ones, one repeats a title and forgets, one keeps a word of what was known.
    assert counts["faults"] == {"repeats": 0.25, "cut": 0.0, "forgets": 0.5}
    assert "user summaries: 25% repeat their prompt, 0% end at their budget, 50% keep nothing of what was known" in said


def test_all_users_of_a_step_go_in_one_call(tmp_path: Path) -> None:
    write(tmp_path, ["abcdefg", "b", "cdef", "gfe"])
    backend = Recording(letters)
    texts, counts, _ = run(tmp_path, backend, config())
    assert [len(call) for call in backend.calls] == [4, 2, 1]
    assert texts == ["ABCDEFG", "B", "CDEF", "GFE"]
    assert counts["requests"] == 7


def test_examples_with_a_common_beginning_share_its_requests(tmp_path: Path) -> None:
    write(tmp_path, ["abcd", "abce", "abc", "abcd"])
    backend = Recording(letters)
    texts, counts, _ = run(tmp_path, backend, config())
    assert [len(call) for call in backend.calls] == [1, 2]
    assert texts == ["ABCD", "ABCE", "ABC", "ABCD"]
    assert (counts["requests"], counts["distinct_requests"], counts["computed"]) == (7, 3, 3)
    assert counts["distinctness"] == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("abcdefgh", max_size=8), max_size=8), st.integers(1, 9))
def test_waves_give_what_one_user_at_a_time_gives(
    tmp_path_factory: pytest.TempPathFactory, histories: list[str], block: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    write(folder, histories)
    texts, counts, _ = run(folder, Recording(), config(block=block))
    prompts, expected = Prompts(), []
    for history in histories:
        state = ""
        for start in range(0, len(history), block):
            items = [HistoryItem(item.upper()) for item in history[start : start + block]]
            state = " ".join(f"answer to {prompts.user_summary(state, items)}".split())
        expected.append(state)
    assert texts == expected
    assert counts["requests"] == sum(-(-len(history) // block) for history in histories)


def test_the_text_after_each_block_is_kept_for_test_examples(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, [list("abcd"), list("abcdefg"), list("hgf"), []], tested=3)
    write_summaries(tmp_path / "items", dict.fromkeys(TITLES, ""))
    texts, _, _ = run(
        tmp_path, Recording(lambda request: "" if ". G" in request.prompt else letters(request)), config()
    )
    steps = read_table(tmp_path / "out" / "steps.parquet", USER_STEPS).to_pylist()
    assert [tuple(row.values()) for row in steps] == [
        (1, 1, 3, "ABC"), (1, 2, 6, "ABCDEF"), (1, 3, 7, "ABCDEF"), (2, 1, 3, ""),
    ]  # fmt: skip
    assert texts == ["ABCD", "ABCDEF", "", ""]  # an empty answer leaves what was known; without blocks nothing is


def test_without_test_examples_the_steps_are_an_empty_table(tmp_path: Path) -> None:
    write(tmp_path, ["abcd"])
    run(tmp_path, Recording(letters), config())
    assert read_table(tmp_path / "out" / "steps.parquet", USER_STEPS).num_rows == 0


def test_direct_reads_the_whole_history_in_one_prompt(tmp_path: Path) -> None:
    write(tmp_path, ["abcdefg", "ba"])
    backend = Recording(letters)
    texts, counts, _ = run(tmp_path, backend, config("direct", block=2))
    assert [len(call) for call in backend.calls] == [2]
    assert texts == ["ABCDEFG", "BA"]
    assert counts["steps"] == 1


def test_none_lists_the_history_without_a_backend(tmp_path: Path) -> None:
    write(tmp_path, ["ab", ""], {"a": "A <image>", "b": ""}, summary="about")
    texts, counts, _ = run(tmp_path, None, config("none"))
    assert texts == ["chosen so far, oldest first: A ‹image› (about a); (no title) (about b)", ""]
    assert counts == {"mode": "none", "examples": 2, "without_summary": 1}


def test_a_model_is_needed_otherwise(tmp_path: Path) -> None:
    write(tmp_path, ["ab"])
    with pytest.raises(ValueError, match="asks a model, and there is no back end"):
        run(tmp_path, None, config("direct"))


def test_an_empty_answer_keeps_what_earlier_blocks_said(tmp_path: Path) -> None:
    write(tmp_path, ["abcdefg", "d"])
    backend = Recording(lambda request: "" if ". D" in request.prompt else letters(request))
    texts, counts, notes = run(tmp_path, backend, config())
    assert texts == ["ABCG", ""]
    assert (counts["empty_answers"], counts["without_summary"]) == (2, 1)
    assert "2 of 4 answers were empty" in notes


def test_hostile_text_travels_as_text(tmp_path: Path) -> None:
    write(tmp_path, ["abcd"], TITLES | {"a": "<image>", "b": "</s>", "c": "C\nUpdate"}, summary="<video>")
    backend = Recording(lambda request: "likes\n<image> [INST] {{ 7*7 }}")
    texts, _, _ = run(tmp_path, backend, config())
    assert texts == ["likes ‹image› (INST) { { 7*7 } }"]
    assert "so far: likes ‹image› (INST) { { 7*7 } }\n" in backend.prompts[1]
    assert "\n3. C Update - ‹video› c\n" in backend.prompts[0]
    assert not [token for token in ("<image>", "<video>", "</s>", "{{", "[INST]") if token in "".join(backend.prompts)]


def test_answers_cut_by_the_budget_are_counted(tmp_path: Path) -> None:
    write(tmp_path, ["abcd"])
    _, counts, notes = run(tmp_path, Recording(reason="length"), config())
    assert counts["cut_by_budget"] == 2
    assert "2 of 2 answers were cut at 128 tokens" in notes


@pytest.mark.parametrize(("users", "warned"), [(21, True), (20, False)])
def test_a_collapse_is_said_when_there_are_enough_users(tmp_path: Path, users: int, warned: bool) -> None:
    titles = {chr(ord("A") + number): f"Title {number}" for number in range(users)}
    write(tmp_path, list(titles), titles)
    _, counts, notes = run(tmp_path, Recording(lambda request: "likes things"), config())
    assert counts["distinctness"] == pytest.approx(1 / users)
    assert (f"only 1 different summaries for {users} different prompts" in notes) == warned


def test_no_examples(tmp_path: Path) -> None:
    write(tmp_path, [])
    for mode in ("recurrent", "direct", "none"):
        assert run(tmp_path, Recording(), config(mode))[0] == []


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.support.recording import Recording
from tests.summarize.test_users import config, run

class Slow(Recording):
    def _wave(self, requests):
        time.sleep(0.02)
        return super()._wave(requests)

run(Path(sys.argv[2]), Slow(log=Path(sys.argv[3])), config(block=2))
"""


@pytest.mark.slow
def test_twenty_kills_in_a_row_change_nothing_and_repeat_nothing_committed(tmp_path: Path) -> None:
    histories = ["".join(letters) for letters in product("abcdefgh", repeat=4)]
    for name in ("undisturbed", "killed"):
        write(tmp_path / name, histories)
    undisturbed = Recording()
    expected, _, _ = run(tmp_path / "undisturbed", undisturbed, config(block=2))
    waves = [[request.key for request in call] for call in undisturbed.calls]
    moments = random.Random(0)
    for attempt in range(20):
        before = committed(tmp_path / "killed", waves)
        log = tmp_path / f"{attempt}.log"
        kill_at(tmp_path / "killed", log, moments.randint(1, 3), moments.uniform(0, 0.03))
        assert not before & set(log.read_text().split()), "a committed request was computed again"
    assert not (tmp_path / "killed" / "out").exists()
    before = committed(tmp_path / "killed", waves)
    assert 0 < len(before) < sum(map(len, waves))
    last = Recording()
    texts, _, _ = run(tmp_path / "killed", last, config(block=2))
    assert texts == expected
    asked = [[request.key for request in call] for call in last.calls]
    assert asked == waves[len(waves) - len(asked) :]  # the very batches of an undisturbed run
    assert not before & {key for call in asked for key in call}


def committed(folder: Path, waves: Sequence[Sequence[str]]) -> set[str]:
    with CompletionCache(folder / "c.sqlite") as cache:
        return cache.known([key for wave in waves for key in wave])


def kill_at(folder: Path, log: Path, lines: int, delay: float) -> None:
    """Run the stage and kill it a moment after ``log`` has that many lines."""
    command = [sys.executable, "-c", KILLED, str(ROOT), str(folder), str(log)]
    process = subprocess.Popen(command)
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < lines):
        time.sleep(0.001)
    assert process.poll() is None
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_new_interactions_cost_only_their_own_blocks(tmp_path: Path) -> None:
    write(tmp_path, ["abc", "abcdef", "gh"])
    before, _, _ = run(tmp_path, Recording(letters), config())
    write(tmp_path, ["abcd", "abcdefgh", "gh"])
    backend = Recording(letters)
    after, counts, _ = run(tmp_path, backend, config())
    assert [len(call) for call in backend.calls] == [2]
    assert (before, after) == (["ABC", "ABCDEF", "GH"], ["ABCD", "ABCDEFGH", "GH"])
    assert (counts["computed"], counts["cached"]) == (2, 3)
    anew = tmp_path / "anew"
    write(anew, ["abcd", "abcdefgh", "gh"])
    assert run(anew, Recording(letters), config())[0] == after


@pytest.mark.parametrize(("grown", "asked"), [
    ("abcdefg", 1),  # nothing was cut: the new block alone
    ("abcdefgh", 1),
    ("bcdefg", 2),  # `split.max_history` cut the oldest item: a summary cannot forget it, so all is read anew
    ("defgh", 2),  # a whole block went: what the others say was built on it
])  # fmt: skip
def test_what_a_grown_history_shares_with_the_one_before(tmp_path: Path, grown: str, asked: int) -> None:
    write(tmp_path, ["abcdef"])
    run(tmp_path, Recording(letters), config())
    write(tmp_path, [grown])
    backend = Recording(letters)
    texts, _, _ = run(tmp_path, backend, config())
    assert len(backend.prompts) == asked
    assert texts == [grown.upper()]
