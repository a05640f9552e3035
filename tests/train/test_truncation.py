"""User summaries truncated: one text per example, whole tokens, alike for training and scoring."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter import schema
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.candidate_rows import ANSWERS, CandidateRows
from msr_adapter.config.loader import load_pipeline
from msr_adapter.errors import UserError
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.pipeline import look_deep, plan, run
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import build_dataset, preflight
from msr_adapter.train.shorter_summaries import TruncatedHistory, TruncatedSummary
from msr_adapter.train.truncation import UserTexts, truncate_summaries
from tests.support.tiny_run import QUIET, model_ref, train_config, write_upstream
from tests.support.training_rows import training_rows

LONG = "Likes quiet landscapes and night scenes, bold red comic covers 🎬🧑‍🚀, and 山水画 above all. "
ENCODER: list[Encoder] = []


def encoder() -> Encoder:
    if not ENCODER:
        ENCODER.append(Encoder(model_ref()))
    return ENCODER[0]


def with_long(folder: Path, long: Sequence[int] = (0, 9, 12)) -> StageDirs:
    """Write stages in which the given examples (training, validation, test) have long user summaries."""
    made = write_upstream(folder)
    table = schema.read_table(made.users / "users.parquet", schema.USER_SUMMARIES).to_pylist()
    rows = [{**row, "summary": LONG * 8 if row["example_id"] in long else row["summary"]} for row in table]
    schema.write_table(
        pa.Table.from_pylist(rows, schema.USER_SUMMARIES), schema.USER_SUMMARIES, made.users / "users.parquet"
    )
    return made


def no_history(examples: pa.Table) -> list[list[HistoryItem]]:
    return [[] for _ in range(len(examples))]


def truncate(
    made: StageDirs, cutoff_len: int, histories: Any = no_history, **settings: Any
) -> tuple[Path, dict[str, Any]]:
    out = made.data.parent / f"truncate-{cutoff_len}"
    out.mkdir(exist_ok=True)
    train = train_config(cutoff_len=cutoff_len, too_long="truncate", **settings)
    return out, truncate_summaries(train, made, UserTexts(Prompts(), histories), Job(out, QUIET))


def texts(folder: Path) -> list[str]:
    return list(schema.read_table(folder / "users.parquet", schema.USER_SUMMARIES)["summary"].to_pylist())


def longest_rows(made: StageDirs, users: Path) -> dict[int, int]:
    """Return example -> its longest row, measured one by one."""
    found: dict[int, int] = {}
    for split in ("train", "validation", "test"):
        for row in CandidateRows(made.data, users, Prompts(), split, images=True):
            images = [row.image.path] if row.image else []
            length = max(encoder().row_length(row.prompt, images, answer) for answer in ANSWERS)
            found[row.example_id] = max(found.get(row.example_id, 0), length)
    return found


def test_only_what_is_too_long_is_cut_and_then_it_fits(tmp_path: Path) -> None:
    made = with_long(tmp_path)
    before = longest_rows(made, made.users)
    limit = sorted(before.values())[-4]  # the longest row of all the others
    out, counts = truncate(made, limit)
    after, old, new = longest_rows(made, out), texts(made.users), texts(out)
    assert max(after.values()) == limit
    changed = [place for place, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]]
    assert changed == [0, 9, 12]
    for place in changed:
        kept = new[place].removesuffix("…")
        assert old[place].startswith(kept)
        assert limit - 25 <= after[place] <= limit  # not more is cut than must be: a word and the mark
    assert counts["truncated"] == 3
    assert counts["longest_row"] == max(before.values())
    assert counts["truncated_by_split"] == {"train": 1, "validation": 1, "test": 1}
    named = schema.read_table(out / "truncated.parquet", schema.TRUNCATED).to_pylist()
    assert [(row["example_id"], row["tokens_before"], row["tokens_after"], row["text"]) for row in named] == [
        (place, before[place], after[place], new[place]) for place in changed
    ]
    assert counts["shortest_left"] == min(row["summary_tokens"] for row in named)


def test_what_is_trained_is_what_is_asked(tmp_path: Path) -> None:
    made = with_long(tmp_path)
    out, _ = truncate(made, 300)
    train = train_config(cutoff_len=300, too_long="truncate")
    made.dataset.mkdir()
    build_dataset(train, replace(made, user_summaries=out), Prompts(), Job(made.dataset, QUIET))
    assert preflight(train, made, QUIET)["longest_row"] <= 300
    written = {row.prompt for name in (TRAIN, VALIDATION) for row in training_rows(made.dataset / name)}
    asked = [row for split in ("train", "validation") for row in CandidateRows(made.data, out, Prompts(), split,
                                                                              images=True)]  # fmt: skip
    assert {row.prompt for row in asked} == written
    items = schema.read_table(made.data / "items.parquet", schema.ITEMS).to_pylist()
    titles = {row["item_id"]: row["title"] for row in items}
    for row in asked:  # question, title and image are whole
        assert "Answer Yes or No.\nCandidate:\n" in row.prompt
        assert row.prompt.endswith(f"Title: {titles[row.item_id] or '(no title)'}")
        assert row.prompt.count("<image>") == (row.image is not None)
    cut = {row.prompt.split("\nBased on the preferences")[0] for row in asked if row.example_id == 0}
    assert len(cut) == 1  # all candidates of an example see the same text
    assert next(iter(cut)).rstrip().endswith("…")


def test_the_oldest_entries_of_a_listed_history_go(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    items = [HistoryItem(f"Item number {number}", "bold red comic covers") for number in range(30)]
    table = schema.read_table(made.users / "users.parquet", schema.USER_SUMMARIES).to_pylist()
    table[0]["summary"] = whole = Prompts().history(items)
    schema.write_table(
        pa.Table.from_pylist(table, schema.USER_SUMMARIES), schema.USER_SUMMARIES, made.users / "users.parquet"
    )
    before = longest_rows(made, made.users)[0]
    out, _ = truncate(made, before - 60, lambda examples: [items if key == 0 else [] for key in
                                                     examples["example_id"].to_pylist()])  # fmt: skip
    left = texts(out)[0]
    kept = next(count for count in range(1, 30) if Prompts().history(items[-count:]) == left)
    assert 20 < kept < 30
    assert "Item number 29" in left
    assert "Item number 0" not in left
    assert whole.endswith(left.split(": ", 1)[1])
    after = longest_rows(made, out)[0]
    assert before - 60 - 35 <= after <= before - 60  # an entry more would not have counts


def test_what_cannot_be_cut_enough_is_refused_by_name(tmp_path: Path) -> None:
    made = with_long(tmp_path)
    with pytest.raises(UserError) as caught:
        truncate(made, 60)
    (problem,) = caught.value.problems
    assert problem.field == "train.cutoff_len"
    assert problem.found.startswith("15 examples stay too long")
    assert "example 0 of user u0: " in problem.found
    assert problem.found.endswith(" and 10 more")
    assert f"the longest row has {max(longest_rows(made, made.users).values())} tokens" in problem.next_step
    assert not (tmp_path / "truncate-60" / "users.parquet").exists()


def test_nothing_too_long_changes_nothing(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    out, counts = truncate(made, 2048)
    assert texts(out) == texts(made.users)
    assert (counts["truncated"], counts["shortest_left"]) == (0, None)
    assert len(schema.read_table(out / "truncated.parquet", schema.TRUNCATED)) == 0


WORD = st.sampled_from(["likes", "🧑‍🚀", "山水", "e\u0301te\u0301", "👍🏽", "naïve", "ok", "…", "مرحبا"])
WORDS = st.lists(WORD, min_size=12)


@given(words=WORDS, glue=st.sampled_from([" ", ""]), steps=st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_cuts_leave_whole_characters_and_end(words: list[str], glue: str, steps: list[int]) -> None:
    text = glue.join(words)
    one = TruncatedSummary.of(text, encoder().tokenizer)
    size = len(text)
    for step in steps:
        if not one.cut(step):
            break
        now = one.now()
        kept = now.removesuffix("…")
        assert now.endswith("…")
        assert text.startswith(kept)
        assert len(kept) <= size
        size = len(kept)
        rest = text[len(kept) :]
        assert not rest or (rest[0] not in "\u0301\u200d\U0001f3fd" and not kept.endswith("\u200d"))
        now.encode("utf-8")
    assert len(one.now()) > 0


@given(length=st.integers(1, 20), steps=st.lists(st.integers(0, 60), min_size=1, max_size=30))
def test_a_history_loses_its_oldest_items_and_keeps_the_newest(length: int, steps: list[int]) -> None:
    items = [HistoryItem(str(number)) for number in range(length)]
    one = TruncatedHistory(items, lambda kept: " ".join(item.title for item in kept), lambda text: 10)
    kept = length
    for step in steps:
        done = one.cut(step)
        assert done == (kept > 1)
        kept -= min(kept - 1, max(1, -(-step // 10)))
        assert one.now() == " ".join(map(str, range(length - kept, length)))


SHORT = """\
name: short
data:
  source: {kind: synthetic, users: 40, items: 60}
summarize:
  items: {model: {path: nobody, backend: scripted}, mode: none}
  users: {model: {path: nobody, backend: scripted}, mode: none}
train: {model: {path: tiny, template: qwen2_vl}, too_long: truncate, cutoff_len: 165}
evaluate: {protocol: next-item, baselines: [base]}
"""


class Noting(ScriptedBackend):
    """Keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: set[str] = set()

    def complete(self, requests: Any, *more: Any) -> Any:
        self.prompts |= {request.prompt for request in requests}
        return super().complete(requests, *more)


def test_a_run_trains_and_scores_the_truncated_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short.yaml").write_text(SHORT)
    backend, folder = Noting(), tmp_path / "run"
    monkeypatch.setattr(Context, "backend", lambda *_: nullcontext(backend))
    loaded = load_pipeline(str(tmp_path / "short.yaml"), (), folder)
    result = run(loaded, ("dataset", "score-base"), reporter=QUIET)
    counts = {stage.name: stage.summary for stage in result.stages}["truncate"]
    assert counts["longest_row"] > 165
    assert min(counts["truncated_by_split"].values()) > 0
    assert look_deep(loaded, plan(loaded), QUIET)["longest_row"] <= 165
    shown, whole = (
        {row.prompt for row in CandidateRows(folder / "data", folder / stage, Prompts(), "test", images=True)}
        for stage in ("truncate", "users")
    )
    assert backend.prompts == shown != whole
    again = load_pipeline(str(tmp_path / "short.yaml"), ("train.too_long=error",), folder)
    assert "truncate" not in plan(again)
    assert plan(again)["dataset"] != "up to date"
    with pytest.raises(UserError, match="Run `msr build-data` first"):
        look_deep(again, plan(again), QUIET)
