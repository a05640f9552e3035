"""Scores of questions that a text answers: token for token what is trained, equal to plain passes, by hand."""

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from rich.console import Console

from msr_adapter import schema
from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.candidate_rows import CandidateFolders, CandidateRows
from msr_adapter.config.schema import TextAnswerConfig, TrainConfig
from msr_adapter.errors import UserError
from msr_adapter.generation import Backend, Completion, CompletionCache, Request
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION, WrittenRow, read_rows
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.token_counts import AnswerCutter
from msr_adapter.llamafactory.training_yaml import training_config
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.score import Validation, score
from msr_adapter.score.alone_weights import weigh_alone
from msr_adapter.stage_arguments import Client, Job, StageDirs
from msr_adapter.train import build_dataset
from msr_adapter.train.text_rows import pairs, right_rows
from tests.support.tiny_run import QUIET, model_ref, scratch, train_config, write_upstream

QUESTIONS = ("next-item-text", "user-text")
SHORT = {"max_tokens": 24}


class Recorder(Reporter):
    """Keeps what is told, line by line."""

    def __init__(self) -> None:
        self._told = io.StringIO()
        super().__init__(console=Console(file=self._told, width=500))

    @property
    def lines(self) -> list[str]:
        return self._told.getvalue().splitlines()


def asking(question: str, template: str = "qwen2_vl", **text: Any) -> TrainConfig:
    return train_config(template, question=question, text_answer={**SHORT, **text})


def upstream(*, summaries: bool = True) -> StageDirs:
    """Data and users stages with hostile titles, and an item summary for most items."""
    made = write_upstream(scratch())
    ids = schema.read_table(made.data / "items.parquet", schema.ITEMS)["item_id"].to_pylist()
    rows = [(item, f"Shows {item}, é 🎬" if summaries and number % 3 else "") for number, item in enumerate(ids)]
    table = pa.table(dict(zip(("item_id", "summary"), zip(*rows, strict=True), strict=True)))
    made.items.mkdir()
    schema.write_table(table, schema.ITEM_SUMMARIES, made.items / "items.parquet")
    made.dataset.mkdir()
    return made


def prompts_of(train: TrainConfig, folder: Path | None = None) -> Prompts:
    cut = AnswerCutter(train.model, train.text_answer.max_tokens) if train.asks_text else None
    return Prompts(folder, question=train.template, cut=cut)


def rows_of(train: TrainConfig, made: StageDirs, prompts: Prompts, split: str) -> CandidateRows:
    folders = CandidateFolders(made.data, made.user_summaries, items=made.items)
    return CandidateRows.read(folders, prompts, split, images=train.images)


def run(train: TrainConfig, made: StageDirs, out: Path, backend: Backend, reporter: Any = QUIET) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    with CompletionCache(out.parent / "completions.sqlite") as cache:
        return score(train, made, Client(prompts_of(train), backend, cache), Job(out, reporter))


def ratios(folder: Path) -> list[dict[str, Any]]:
    """The rows that `run` wrote."""
    found: list[dict[str, Any]] = schema.read_table(folder / "scores.parquet", schema.RATIOS).to_pylist()
    return found


class Counted(Backend):
    """The log-probability of a text is minus its number of words, half of that where something is known."""

    identity = label = "counted"

    def __init__(self, nothing: str) -> None:
        self.nothing, self.asked = nothing, list[Request]()

    def complete(self, requests: Sequence[Request], *rest: Any) -> list[Completion]:
        self.asked += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        (text,) = request.choices
        words = len(text.split())
        known = 1.0 if request.prompt == self.nothing else 0.5
        return Completion(request.key, "", (-known * words,), "choice", len(request.prompt), words)


@pytest.mark.parametrize("length", ["sum", "mean"])
def test_a_ratio_is_with_the_user_against_without(tmp_path: Path, length: str) -> None:
    train, made = asking("next-item-text", length=length), upstream()
    backend = Counted(prompts_of(train).without_evidence)
    counts = run(train, made, tmp_path / "score", backend)
    table = schema.read_table(tmp_path / "score" / "scores.parquet", schema.RATIOS).to_pylist()
    titles = dict(pl.read_parquet(made.data / "items.parquet").select("item_id", "title").iter_rows())
    words = {item: len(prompts_of(train).answer("", title).split()) for item, title in titles.items()}
    for row in table:
        number = words[row["item_id"]]
        assert (row["given"], row["alone"], row["tokens"]) == (-0.5 * number, -number, number)
        assert row["ratio"] == pytest.approx(0.5 * (1 if length == "mean" else number))
    # Each different text is asked about without a user once, whoever its candidates are.
    alone = [request for request in backend.asked if request.prompt == backend.nothing]
    assert len(alone) == len({request.choices for request in alone}) == len({row["item_id"] for row in table})
    assert counts["score"] == "log-likelihood ratio"
    assert "answer_mass" not in counts
    assert counts["answer_tokens"] == sum(row["tokens"] for row in table)


def test_the_term_without_a_user_is_asked_once_for_all_scorings(tmp_path: Path) -> None:
    train, made = asking("next-item-text"), upstream()
    for length, left in (("sum", True), ("mean", False)):
        backend = ScriptedBackend()
        run(asking("next-item-text", length=length), made, tmp_path / length, backend)
        assert bool(backend.answered) == left  # how lengths count is no part of what is asked
    backend = ScriptedBackend()
    changed = made.users / "users.parquet"
    texts = pl.read_parquet(changed).with_columns(pl.col("summary") + " and more").to_arrow()
    schema.write_table(texts, schema.USER_SUMMARIES, changed)
    run(train, made, tmp_path / "others", backend)
    nothing = prompts_of(train).without_evidence
    items = pl.read_parquet(made.data / "items.parquet")["title"].to_list()
    texts = {Request(backend.identity, nothing, (), (text,), whole="answer").key for text in items}
    assert not texts & set(backend.answered)


def test_nothing_known_of_a_user_ties_all_candidates(tmp_path: Path) -> None:
    train, made = asking("next-item-text"), upstream()
    texts = pl.read_parquet(made.users / "users.parquet").with_columns(pl.lit("").alias("summary")).to_arrow()
    schema.write_table(texts, schema.USER_SUMMARIES, made.users / "users.parquet")
    counts = run(train, made, tmp_path / "score", ScriptedBackend())
    table = schema.read_table(tmp_path / "score" / "scores.parquet", schema.RATIOS)
    assert set(table["ratio"].to_pylist()) == {0.0}
    assert counts["same"] == counts["candidates"] == len(table)


def plain(backend: HuggingFaceBackend, request: Request) -> tuple[float, int]:
    """The reference: prompt and answer in one row, through the training's own collator; log p and tokens."""
    loaded = backend._load()
    ids = loaded.encoder.encode(request.prompt, [image.path for image in request.images])
    answer = loaded.encoder.scored_ids(request.choices[0], end=request.whole == "turn")
    return loaded.forced([(request, [*ids, *answer[:-1]])], [answer])[0][0], len(answer)


@pytest.mark.parametrize("template", ["qwen2_vl", "llava"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_shared_prefixes_give_the_likelihoods_of_plain_passes(question: str, template: str, tmp_path: Path) -> None:
    train, made = asking(question, template), upstream()
    backend = HuggingFaceBackend(train.model)
    counts = run(train, made, tmp_path / "score", backend)
    assert not backend.stats.reasons
    table = schema.read_table(tmp_path / "score" / "scores.parquet", schema.RATIOS)
    rows = list(rows_of(train, made, prompts_of(train), "test"))
    assert {bool(row.image) for row in rows} == ({True, False} if question == "user-text" else {False})
    nothing = prompts_of(train).without_evidence
    for row, found in zip(rows, table.to_pylist(), strict=True):
        images = (row.image,) if row.image else ()
        for prompt, shown, name in ((row.prompt, images, "given"), (nothing, (), "alone")):
            expected, tokens = plain(backend, Request("m", prompt, shown, (row.answer,), whole="answer"))
            assert found["tokens"] == tokens
            assert found[name] == pytest.approx(expected, abs=1e-5 * tokens)
    assert counts["tokens_planned"] < counts["tokens_flat"]
    assert counts["order"] == ("items" if question == "user-text" else "users")


def test_logits_are_computed_at_answers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = HuggingFaceBackend(asking("next-item-text").model)
    titles = ("A", "A longer title of several words", "🎬")
    asked = [Request("m", f"{user} What next?", (), (title,), whole="turn") for user in ("One.", "Two.")
             for title in titles]  # fmt: skip
    backend.complete(asked)
    network = backend._load().network
    seen = []
    head = network.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    backend.complete(asked)
    handle.remove()
    longest = max(len(backend._load().encoder.scored_ids(title, end=True)) for title in titles)
    assert max(seen) == longest


@pytest.mark.parametrize("template", ["qwen2_vl", "llava"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_scored_tokens_are_trained_tokens(
    question: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "next-item-text-answer.j2").write_text("{{ title }}{% if item.summary %}: {{ item.summary }}{% endif %}.")
    train, made = asking(question, template), upstream()
    prompts = prompts_of(train, folder)
    counts = build_dataset(train, made, prompts, Job(made.dataset, QUIET))
    assert counts["train_rows"] == counts["train_positives"] == 8
    config = training_config(train, made.data, made.dataset, tmp_path / "out", 0)
    model_args, data_args, training_args, _, _ = get_train_args(config)
    module = load_tokenizer(model_args)
    shared = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    trained = get_dataset(shared, model_args, data_args, training_args, stage="sft", **module)["train_dataset"]
    encoder = Encoder(model_ref(template))
    asked = asked_rows(train, made, prompts)
    written = [
        (row["messages"][0]["content"], row["messages"][1]["content"]) for row in read_rows(made.dataset / TRAIN)
    ]
    assert sorted(written) == sorted((row.prompt, row.answer) for row in asked)
    by_text = {(row.prompt, row.answer): row for row in asked}
    for (prompt, answer), ids, labels in zip(written, trained["input_ids"], trained["labels"], strict=True):
        image = by_text[prompt, answer].image
        before = encoder.encode(prompt, [image.path] if image else [])
        scored, whole = encoder.scored_ids(answer, end=False), encoder.scored_ids(answer, end=True)
        assert ids == before + whole
        assert labels == [-100] * len(before) + whole
        assert whole[: len(scored)] == scored
        assert 0 < len(scored) < len(whole)  # the end of the turn is trained, and not scored unless asked for


def asked_rows(train: TrainConfig, made: StageDirs, prompts: Prompts) -> list[Any]:
    """The training positives, as scoring would ask about them."""
    return [row for row in rows_of(train, made, prompts, "train") if row.label]


@pytest.mark.parametrize("rows", ["parquet", "jsonl"])
def test_rows_come_back_as_they_are_asked(rows: str) -> None:
    train, made = train_config(question="next-item-text", text_answer=SHORT, rows=rows), upstream()
    build_dataset(train, made, prompts_of(train), Job(made.dataset, QUIET))
    found = [row["messages"][1]["content"] for row in read_rows(made.dataset / TRAIN)]
    assert sorted(found) == sorted(row.answer for row in asked_rows(train, made, prompts_of(train)))
    assert len(list(read_rows(made.dataset / VALIDATION))) == 3


@pytest.mark.parametrize("rows", ["parquet", "jsonl"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_some_answers_are_trained_without_the_evidence_too(question: str, rows: str) -> None:
    made = upstream()
    told = Recorder()
    train = train_config(question=question, text_answer={**SHORT, "without_evidence": 0.5}, rows=rows)
    counts = build_dataset(train, made, prompts_of(train), Job(made.dataset, told, seed=3))
    asked, nothing = asked_rows(train, made, prompts_of(train)), prompts_of(train).without_evidence
    found = list(read_rows(made.dataset / TRAIN))
    bare = [row for row in found if row["messages"][0]["content"] == nothing]
    whole = [row for row in found if row["messages"][0]["content"] != nothing]
    # Nothing is lost for it: every row is there, with its images.
    assert sorted(texts_of(whole)) == sorted((row.prompt, row.answer) for row in asked)
    assert sum(bool(row["images"]) for row in whole) == sum(bool(row.images) for row in asked)
    assert len(bare) == len(asked) // 2 == counts["train_rows_without_evidence"]
    assert counts["train_rows"] == len(found)
    assert not any(row["images"] for row in bare)
    left = [row.answer for row in asked]
    for _, answer in texts_of(bare):
        left.remove(answer)  # an answer is drawn as often as it is there at most
    assert len(list(read_rows(made.dataset / VALIDATION))) == 3
    missing = "user" if question == "next-item-text" else "candidate"
    assert any(f"12 rows to train on, 4 of them without a {missing};" in line for line in told.lines)


def test_rows_without_evidence_are_drawn_by_the_seed() -> None:
    def written(seed: int, share: float) -> list[tuple[str, str]]:
        made = upstream()
        train = asking("next-item-text", without_evidence=share)
        build_dataset(train, made, prompts_of(train), Job(made.dataset, QUIET, seed=seed))
        return texts_of(read_rows(made.dataset / TRAIN))

    assert written(1, 0.5) == written(1, 0.5) != written(2, 0.5)
    assert len(written(1, 1.0)) == 2 * len(written(1, 0.0))


@pytest.mark.parametrize("rows", ["parquet", "jsonl"])
def test_pairs_prefer_the_title_that_was_chosen_to_one_that_was_not(rows: str) -> None:
    train = train_config(question="next-item-text", objective="dpo", text_answer=SHORT, rows=rows)
    made = upstream()
    counts = build_dataset(train, made, prompts_of(train), Job(made.dataset, QUIET))
    for split, folder in (("train", TRAIN), ("validation", VALIDATION)):
        asked = list(rows_of(train, made, prompts_of(train), split))
        target = {row.example_id: row for row in asked if row.label}
        wrong = [row for row in asked if not row.label and row.answer != target[row.example_id].answer]
        expected = sorted((target[row.example_id].prompt, target[row.example_id].answer, row.answer) for row in wrong)
        found = list(read_rows(made.dataset / folder))
        assert sorted(
            (row["messages"][-1]["content"], row["chosen"]["content"], row["rejected"]["content"]) for row in found
        ) == expected  # fmt: skip
        assert counts[f"{split}_rows"] == len(found) > 0
        assert not any(row["images"] for row in found)


def test_a_shop_whose_titles_are_all_the_same_has_no_pair_to_learn_from() -> None:
    train = train_config(question="next-item-text", objective="dpo", text_answer=SHORT)
    made = upstream()
    items = pl.read_parquet(made.data / "items.parquet").with_columns(pl.lit("The one title").alias("title"))
    schema.write_table(items.to_arrow().cast(schema.ITEMS), schema.ITEMS, made.data / "items.parquet")
    with pytest.raises(UserError, match="no training examples are left"):
        build_dataset(train, made, prompts_of(train), Job(made.dataset, QUIET))


def test_several_positives_of_a_list_take_turns_and_equal_texts_are_no_pair() -> None:
    class Listed:
        examples = np.array([4, 4, 4, 4, 4, 7, 7, 9, 9])
        labels = np.array([1, 0, 1, 0, 0, 0, 0, 1, 0])
        texts = pl.Series(["a", "b", "c", "d", "c", "e", "f", "g", "g"])

        def __len__(self) -> int:
            return len(self.examples)

        def answers(self, places: Any) -> pl.Series:
            return self.texts.gather(places)

    rows: Any = Listed()
    right = right_rows(rows)
    # The second, fourth and fifth candidate of the first list; the second list has no positive.
    assert right[[1, 3, 4]].tolist() == [2, 2, 0]
    assert right[5:7].tolist() == [-1, -1]
    wrong, equal = pairs(rows, right)
    assert np.flatnonzero(wrong).tolist() == [1, 3, 4]
    assert equal == 1  # "g" is no better than "g"


def texts_of(rows: Iterable[WrittenRow]) -> list[tuple[str, str]]:
    return [(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows]


@pytest.mark.parametrize(("length", "weight"), [("sum", 0.5), ("mean", 0.25), ("sum", 0.0)])
def test_a_part_of_the_texts_own_likelihood_is_taken_off(tmp_path: Path, length: str, weight: float) -> None:
    train, made = asking("next-item-text", length=length, alone_weight=weight), upstream()
    backend = Counted(prompts_of(train).without_evidence)
    run(train, made, tmp_path / "score", backend)
    for row in schema.read_table(tmp_path / "score" / "scores.parquet", schema.RATIOS).to_pylist():
        number = row["tokens"]
        assert (row["given"], row["alone"]) == (-0.5 * number, -number)  # told as they are
        assert row["ratio"] == pytest.approx((weight - 0.5) * (1 if length == "mean" else number))


def test_validation_users_say_which_weight_ranks_them_best(tmp_path: Path) -> None:
    # Of both users the positive, their first, gains 4 nats by the prompt, and the negative 5. The first user's positive
    # is likelier alone by 5 nats, the second's by 3: below 4/5 the first is ranked right, below 2/3 both.
    columns = {"example_id": [0, 0, 1, 1], "item_id": ["a", "b", "a", "b"], "label": [1, 0, 1, 0]}
    schema.write_table(pa.table(columns).cast(schema.CANDIDATES), schema.CANDIDATES, tmp_path / "candidates.parquet")
    alone = np.array([-10.0, -15.0, -10.0, -13.0])
    given = alone + np.array([4.0, 5.0, 4.0, 5.0])
    ratios = [columns["example_id"], columns["item_id"], given - alone, given, alone, [5] * 4]
    table = pa.table(dict(zip(schema.RATIOS.names, ratios, strict=True)), schema=schema.RATIOS)
    schema.write_table(table, schema.RATIOS, tmp_path / "scores.parquet")
    told = Recorder()
    # HR@1 asks the same of lists of two; HR@2 is always 1, and then the weight in use stays.
    found = weigh_alone(tmp_path, TextAnswerConfig(), "hr@1", told)
    best = {"value": 0.0, "best": 1.0, "weight": 0.6}
    assert found == {"weighed": [{"metric": "gauc", **best}, {"metric": "hr@1", **best}]}
    [line] = told.lines
    assert "2 validation users, train.text_answer.alone_weight 1: GAUC 0.0000, at best 1.0000 with 0.6; HR@1" in line
    found = weigh_alone(tmp_path, TextAnswerConfig(), "hr@2", told)
    assert found["weighed"][1] == {"metric": "hr@2", "value": 1.0, "best": 1.0, "weight": 1.0}
    assert told.lines[-1].endswith("HR@2 1.0000, the best of those looked at")
    [only] = weigh_alone(tmp_path, TextAnswerConfig(alone_weight=0.3), "auc", told)["weighed"]
    assert only == {"metric": "gauc", "value": 1.0, "best": 1.0, "weight": 0.3}


def test_checkpoints_are_judged_by_ratios(tmp_path: Path) -> None:
    train, made = asking("next-item-text"), upstream()
    judge = Validation(train, made, prompts_of(train), seed=1)
    with CompletionCache(tmp_path / "completions.sqlite") as cache:
        found = judge.judge(backend := Counted(prompts_of(train).without_evidence), cache, QUIET)
    assert found.loss == pytest.approx(0.5)  # nats a token of the positives' texts
    assert math.isfinite(found.value)
    assert {request.whole for request in backend.asked} == {"answer"}


def test_a_key_says_how_choices_are_scored() -> None:
    one = Request("m", "What?", (), ("Yes",))
    whole, turn = (Request("m", "What?", (), ("Yes",), whole=what) for what in ("answer", "turn"))
    assert len({one.key, whole.key, turn.key}) == 3
    # As before there were whole answers: what is cached goes on answering.
    assert one.key == Request("m", "What?", choices=("Yes",)).key
    assert whole.label_words == ()
