"""A pretrained model with its real tokenizer: what is scored is what was trained."""

import csv
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from msr_adapter import schema
from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.candidate_rows import ANSWERS
from msr_adapter.config.schema import ModelConfig, TextAnswerConfig, TrainConfig
from msr_adapter.generation.request import Completion, Request
from msr_adapter.llamafactory.dataset import TRAIN
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.token_counts import AnswerCutter
from msr_adapter.llamafactory.training_yaml import training_config
from msr_adapter.prompts import HistoryItem, Prompts, neutralise
from msr_adapter.stage_arguments import Job
from msr_adapter.train import build_dataset
from tests.support.paths import shared_data
from tests.support.real_model import needs_smollm2, smollm2
from tests.support.tiny_run import QUIET, stages_in
from tests.support.training_rows import training_rows

pytestmark = [pytest.mark.slow, needs_smollm2]

TITLES = shared_data("microlens-50k") / "MicroLens-50k_titles.csv"
needs_titles = pytest.mark.skipif(not TITLES.is_file(), reason=f"needs {TITLES}")
RIGHT_TO_LEFT = (
    "مرحبا بالعالم 🎬 #فيديو", "שלום עולם #סרט 2024", "فيلم \u202eقصير\u202c 12:30", "עברית, English ו-42", "١٢٣ أرقام",
)  # fmt: skip
"""The data set was translated into English: no title of it is written from right to left."""
NUMBER = 500
PROMPTS, WORDS = 100, 16


def titles() -> list[str]:
    """Return real titles, those with emoji, hashtags and runs of blanks first, and some that run from right to left."""
    with TITLES.open(encoding="utf-8", newline="") as file:
        found = [row["title"] for row in csv.DictReader(file)]
    emoji = [title for title in found if any(unicodedata.category(sign) == "So" for sign in title)]
    blanks = [title for title in found if "  " in title]
    hashtags = [title for title in found if "#" in title and any(sign.isdigit() for sign in title)]
    evenly = [found[place * len(found) // 100] for place in range(100)]
    chosen = list(dict.fromkeys([*emoji[:250], *blanks, *hashtags[:200], *evenly, *found]))[
        : NUMBER - len(RIGHT_TO_LEFT)
    ]
    assert sum(map(emoji.count, chosen)) >= 200
    assert sum("#" in title for title in chosen) > 300
    return [*RIGHT_TO_LEFT, *chosen]


def model() -> ModelConfig:
    return ModelConfig(path=str(smollm2()), batch_size=16)


def write_rows(folder: Path, config: TrainConfig, shown: list[str]) -> None:
    """Write one training row for each title, whose user's text is made of the titles before it."""
    made = stages_in(folder)
    for name in (made.data, made.users, made.dataset):
        name.mkdir(parents=True)
    clean = [neutralise(title) for title in shown]
    items = [
        {
            "item_id": str(n),
            "title": title,
            "popularity": n,
            "text": "",
            "image": None,
            "image_digest": None,
            "in_log": True,
            "listed": True,
        }
        for n, title in enumerate(clean)
    ]
    examples = [
        {"example_id": n, "split": "train", "user_id": f"u{n}", "history": [str(n - 1), str(n - 2)], "timestamp": n}
        for n in range(len(clean))
    ]
    candidates = [
        {"example_id": n, "item_id": str(n), "label": int(config.asks_text or n % 2 == 0)} for n in range(len(clean))
    ]
    texts = [Prompts().history([HistoryItem(clean[n - 1]), HistoryItem(clean[n - 2])]) for n in range(len(clean))]
    summaries = [{"example_id": n, "summary": text} for n, text in enumerate(texts)]
    for rows, table, path in (
        (items, schema.ITEMS, made.data / "items.parquet"),
        (examples, schema.EXAMPLES, made.data / "examples.parquet"),
        (candidates, schema.CANDIDATES, made.data / "candidates.parquet"),
        (summaries, schema.USER_SUMMARIES, made.users / "users.parquet"),
    ):
        schema.write_table(pa.Table.from_pylist(rows, table), table, path)
    cut = AnswerCutter(config.model, config.text_answer.max_tokens)
    prompts = Prompts(question=config.template, cut=cut)
    build_dataset(config, made, prompts, Job(made.dataset, QUIET))


def tokenised(tmp_path: Path, config: TrainConfig, shown: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the rows of ``shown`` as LLaMA-Factory's own loader and processor make them."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    made = stages_in(tmp_path)
    write_rows(tmp_path, config, shown)
    arguments = training_config(config, made.data, made.dataset, tmp_path / "out", 0)
    model_args, data_args, training_args, _, _ = get_train_args(arguments)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    return get_dataset(template, model_args, data_args, training_args, stage="sft", **module)["train_dataset"]


@needs_titles
def test_tokens_of_real_titles_are_scored_as_they_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(model=model(), images=False, max_steps=1, batch_size=1, cutoff_len=2048)
    shown, made = titles(), stages_in(tmp_path)
    trained = tokenised(tmp_path, config, shown, monkeypatch)
    coder, rows = Encoder(config.model), list(training_rows(made.dataset / TRAIN))
    assert coder.model.template == "smollm2"
    assert len(rows) == len(trained) == NUMBER == len(shown)
    answers = dict(zip(ANSWERS, coder.answer_tokens(ANSWERS), strict=True))
    assert coder.tokenizer.convert_ids_to_tokens(list(answers.values())) == ["Yes", "No"]
    for row, ids, labels in zip(rows, trained["input_ids"], trained["labels"], strict=True):
        prompt = coder.encode(row.prompt)
        assert ids[: len(prompt)] == prompt
        assert labels[: len(prompt)] == [-100] * len(prompt)
        assert labels[len(prompt)] == ids[len(prompt)] == answers[row.answer]
        # No byte of a title is lost, and none becomes a token that ends a turn.
        assert row.prompt in coder.tokenizer.decode(prompt)
        assert prompt.count(coder.tokenizer.eos_token_id) == 2
    assert {title for title in map(neutralise, shown) if not any(title in row.prompt for row in rows)} == set()


@needs_titles
def test_real_titles_are_answers_as_they_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(
        model=model(), images=False, max_steps=1, batch_size=1, question="next-item-text",
        text_answer=TextAnswerConfig(max_tokens=32),
    )  # fmt: skip
    shown, made = titles(), stages_in(tmp_path)
    trained = tokenised(tmp_path, config, shown, monkeypatch)
    coder, rows = Encoder(config.model), list(training_rows(made.dataset / TRAIN))
    assert len(rows) == len(trained) == NUMBER == len(shown)
    cut = 0
    clean = {neutralise(title) for title in shown}
    for row, ids, labels in zip(rows, trained["input_ids"], trained["labels"], strict=True):
        prompt, scored = coder.encode(row.prompt), coder.scored_ids(row.answer, end=False)
        assert ids == [*prompt, *coder.scored_ids(row.answer, end=True)]
        assert labels == [*[-100] * len(prompt), *ids[len(prompt) :]]
        assert ids[len(prompt) :][: len(scored)] == scored
        assert len(scored) <= 32
        assert coder.tokenizer.decode(scored) == row.answer  # byte for byte
        cut += row.answer not in clean
        assert any(title.startswith(row.answer) for title in clean)
    assert 0 < cut < NUMBER // 2


def test_the_tokens_of_a_chat_are_those_of_the_models_own_template() -> None:
    coder = Encoder(ModelConfig(path=str(smollm2()), default_system="Be brief."))
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which 3 videos?\n\n1. ☀️ #sun"}]
    own = coder.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert coder.encode(chat[1]["content"]) == own


@needs_titles
def test_greedy_texts_of_real_titles_are_those_of_generate() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    config, shown = model(), [neutralise(title) for title in titles()][: 2 * PROMPTS : 2]
    backend, coder = HuggingFaceBackend(config), Encoder(config)
    asked = [Request(backend.identity, f"In one short sentence, who likes this video?\n{title}", max_new_tokens=WORDS)
             for title in shown]  # fmt: skip
    written = backend.complete(asked)
    plain = AutoModelForCausalLM.from_pretrained(config.path, dtype=torch.float32).eval()
    assert len(written) == PROMPTS
    for request, answer in zip(asked, written, strict=True):
        prompt = torch.tensor([coder.encode(request.prompt)])  # by itself: no padding, no neighbours
        with torch.inference_mode():
            tokens = plain.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=WORDS
            )
        own = coder.tokenizer.decode(tokens[0, prompt.shape[1] :], skip_special_tokens=True)
        assert isinstance(answer, Completion)
        assert answer.text == own.strip()
    assert len({answer.text for answer in written if isinstance(answer, Completion)}) > PROMPTS // 2
