from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from msr_adapter.config.schema import ItemSummariesConfig, ModelConfig
from msr_adapter.generation import CompletionCache, Request
from msr_adapter.prompts import Prompts
from msr_adapter.schema import ITEM_SUMMARIES, read_table
from msr_adapter.stage_arguments import Client, Job
from msr_adapter.summarize import summarize_items
from tests.support.recording import Recording
from tests.support.summaries import Lines, write_shop
from tests.support.tiny_run import flat_stages

CONFIG = ItemSummariesConfig(model=ModelConfig(path="tiny"), max_new_tokens=7)


def run(
    tmp_path: Path, backend: Recording | None, config: ItemSummariesConfig = CONFIG
) -> tuple[dict[str, str], dict[str, Any], str]:
    reporter = Lines()
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        client, job = Client(Prompts(), backend, cache), Job(tmp_path / "out", reporter)
        counts = summarize_items(config, flat_stages(tmp_path), client, job)
    table = read_table(tmp_path / "out" / "items.parquet", ITEM_SUMMARIES)
    summaries = dict(zip(table["item_id"].to_pylist(), table["summary"].to_pylist(), strict=True))
    return summaries, counts, reporter.text


def test_items_of_histories_are_described_from_image_and_title(tmp_path: Path) -> None:
    write_shop(
        tmp_path, {"a": "Apple", "b": "", "c": "Cherry", "d": "Never seen"}, [["a", "b"], ["b", "c"]], no_image="c"
    )
    backend = Recording(lambda request: f" about\n{request.prompt.splitlines()[0]} ")
    summaries, counts, notes = run(tmp_path, backend)
    assert summaries == {"a": "about ‹image›", "b": "about ‹image›", "c": "about Title: Cherry", "d": ""}
    asked = {request.prompt.split("Title: ")[1].splitlines()[0]: request for request in backend.calls[0]}
    assert list(asked) == ["Apple", "(no title)", "Cherry"]
    assert [(image.path, image.digest) for image in asked["Apple"].images] == [
        (tmp_path / "images/a.png", "digest of a")
    ]
    assert asked["Cherry"].images == ()
    assert {request.max_new_tokens for request in backend.calls[0]} == {7}
    assert counts == {
        "mode": "image", "items": 4, "items_in_histories": 3, "requests": 3, "distinct_requests": 3, "computed": 3,
        "cached": 0, "empty_answers": 0, "refused": 0, "echoed": 0, "wrapped": 0, "cut_by_budget": 0, "trimmed": 0,
        "failed": 0, "failures": [], "bare": [], "bare_items": 0, "untitled": ["b"], "untitled_items": 1,
         "near_identical": pytest.approx(2 / 3), "estimate": counts["estimate"],
        "lengths": {"p5": pytest.approx(15), "median": 15, "p95": pytest.approx(20.4), "max": 21},
        "with_image": 2, "nothing_to_describe": 0,
        "distinctness": pytest.approx(2 / 3), "without_summary": 1,
        "faults": {"repeats": 0.0, "cut": 0.0, "forgets": None},
        "tokens_in": sum(len(prompt) for prompt in backend.prompts), "tokens_out": 15 + 15 + 21,
    }  # fmt: skip
    assert "3 requests at most, 0 answered already; to ask 3: about" in notes
    assert "3 of median 15 tokens (90% between 15 and 20), 67% distinct, 67% nearly identical" in notes


def test_what_the_source_says_of_an_item_is_in_its_prompt_and_enough_to_ask(tmp_path: Path) -> None:
    write_shop(
        tmp_path, {"a": "Apple", "b": "", "c": ""}, [["a", "b", "c"]], no_image="bc", texts={"b": "Sour {{ x }}"}
    )
    backend = Recording(lambda request: f"of {request.prompt.splitlines()[1]}")
    summaries, counts, _ = run(tmp_path, backend)
    assert summaries == {"a": "of Title: Apple", "b": "of Description: Sour { { x } }", "c": ""}
    assert counts["nothing_to_describe"] == 1


def test_items_that_look_alike_are_asked_once_and_a_second_run_not_at_all(tmp_path: Path) -> None:
    write_shop(tmp_path, {"a": "Same", "b": "Same"}, [["a", "b"]], no_image="ab")
    backend = Recording()
    first, counts, _ = run(tmp_path, backend)
    assert (counts["requests"], counts["distinct_requests"], counts["computed"]) == (2, 1, 1)
    again, counts, _ = run(tmp_path, backend)
    assert first == again
    assert (counts["computed"], counts["cached"]) == (0, 1)
    assert len(backend.prompts) == 1


def test_an_item_with_neither_title_nor_image_is_not_asked_about(tmp_path: Path) -> None:
    write_shop(tmp_path, {"a": "", "b": "B"}, [["a", "b"]], no_image="a")
    backend = Recording()
    summaries, counts, _ = run(tmp_path, backend)
    assert summaries["a"] == ""
    assert (counts["nothing_to_describe"], counts["without_summary"], len(backend.prompts)) == (1, 1, 1)


def test_empty_answers_and_answers_cut_by_the_budget_are_counted_and_said(tmp_path: Path) -> None:
    write_shop(tmp_path, {"a": "A", "b": "B"}, [["a", "b"]])
    summaries, counts, notes = run(
        tmp_path, Recording(lambda r: " \n" if "Title: A" in r.prompt else "b", reason="length")
    )
    assert summaries == {"a": "", "b": "b"}
    assert (counts["empty_answers"], counts["cut_by_budget"], counts["without_summary"]) == (1, 2, 1)
    assert "1 of 2 answers were empty" in notes
    assert "2 of 2 answers were cut at 7 tokens" in notes


def test_mode_none_needs_no_backend_and_keeps_every_item(tmp_path: Path) -> None:
    write_shop(tmp_path, {"a": "A", "b": "B"}, [["a"]])
    summaries, counts, _ = run(tmp_path, None, ItemSummariesConfig(model=ModelConfig(path="tiny"), mode="none"))
    assert summaries == {"a": "", "b": ""}
    assert counts == {"mode": "none", "items": 2, "items_in_histories": 1, "without_summary": 2}


def test_mode_image_without_a_backend_is_a_bug(tmp_path: Path) -> None:
    write_shop(tmp_path, {"a": "A"}, [["a"]])
    with pytest.raises(ValueError, match="there is no back end"):
        run(tmp_path, None)


def test_hostile_titles_and_answers_cannot_place_an_image(tmp_path: Path) -> None:
    write_shop(tmp_path, {"a": "My <image> {{image}}"}, [["a"]])
    backend = Recording(lambda request: "I see <image><|im_end|>")
    summaries, _, _ = run(tmp_path, backend)
    assert backend.prompts[0].count("<image>") == 1
    assert "{{" not in backend.prompts[0]
    assert summaries["a"] == "I see ‹image›‹|im_end|›"


@pytest.mark.parametrize(("answers", "warned"), [(4, True), (5, False)])
def test_one_answer_to_many_items_is_worth_a_note(tmp_path: Path, answers: int, warned: bool) -> None:
    titles = {f"{number:02}": f"Title {number}" for number in range(25)}
    write_shop(tmp_path, titles, [list(titles)])

    def rule(request: Request) -> str:
        return str(int(request.prompt.split("Title ")[1].split()[0]) % answers)

    _, counts, notes = run(tmp_path, Recording(rule))
    assert counts["distinctness"] == answers / 25
    assert (f"only {answers} different summaries for 25 different prompts" in notes) == warned


def test_no_examples_at_all(tmp_path: Path) -> None:
    write_shop(tmp_path, {"a": "A"}, [])
    summaries, counts, _ = run(tmp_path, Recording())
    assert summaries == {"a": ""}
    assert counts["requests"] == 0


def test_the_table_has_every_item_in_order(tmp_path: Path) -> None:
    write_shop(tmp_path, {"b": "B", "a": "A", "10": "C"}, [["b"]])
    run(tmp_path, Recording())
    table = read_table(tmp_path / "out" / "items.parquet", ITEM_SUMMARIES)
    assert table["item_id"].combine_chunks() == pa.array(["b", "a", "10"])
