"""The training YAML that `llamafactory-cli train` accepts, from our `Train` config."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from msr_adapter.config.models import Train
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import write_text
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION, count_rows
from msr_adapter.llamafactory.models import is_small, resolve_model
from msr_adapter.llamafactory.recognise import settled
from msr_adapter.llamafactory.strategies import parallel_arguments

_LOG_LINES = 50
_FOREVER_S = 180_000_000

REFUSED = {
    **dict.fromkeys(
        ("model_name_or_path", "model_revision", "template", "default_system", "image_max_pixels", "image_min_pixels",
         "bf16", "fp16"), "set it under train.model"),
    **dict.fromkeys(
        ("finetuning_type", "lora_rank", "lora_alpha", "lora_dropout", "lora_target"),
        "set it under train.method and train.lora"),
    **dict.fromkeys(
        ("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
         "learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "weight_decay", "cutoff_len",
         "train_on_prompt"), "the field of the same meaning under train sets it"),
    "seed": "the pipeline's seed sets it",
    **dict.fromkeys(
        ("deepspeed", "fsdp", "fsdp_config", "ddp_backend", "ray_num_workers", "master_addr", "master_port"),
        "set it under train.launch"),
    **dict.fromkeys(
        ("stage", "do_train", "dataset", "dataset_dir", "media_dir", "eval_dataset", "output_dir",
         "overwrite_output_dir", "resume_from_checkpoint"), "msr names these files itself"),
    **dict.fromkeys(
        ("tokenized_path", "overwrite_cache", "streaming", "max_samples", "val_size", "mix_strategy",
         "interleave_probs"), "it would train on other rows than the written data set"),
    **dict.fromkeys(
        ("use_fast_tokenizer", "split_special_tokens", "add_tokens", "add_special_tokens", "new_special_tokens_config",
         "resize_vocab", "enable_thinking", "tool_format", "image_do_pan_and_scan", "crop_to_patches", "mask_history"),
        "prompts would be encoded differently in training than in scoring"),
    **dict.fromkeys(
        ("quantization_bit", "pure_bf16", "use_dora", "create_new_adapter", "adapter_name_or_path"),
        "the trained model would not be the one that is scored"),
}  # fmt: skip
"""LLaMA-Factory keys that ``train.overrides`` may not set, and why."""


def check_overrides(overrides: Mapping[str, Any], where: str = "") -> list[Problem]:
    """Return a problem for every override that msr sets itself, or that the YAML reader would misread."""
    problems = [
        Problem(where, f"train.overrides.{key}", "this key is msr's own", REFUSED[key])
        for key in overrides if key in REFUSED
    ]  # fmt: skip
    return problems + [
        Problem(where, f"train.overrides.{key}", f"{value!r} holds ${{, which LLaMA-Factory would interpolate")
        for key, value in overrides.items() if _interpolates(value)
    ]  # fmt: skip


def unknown_overrides(overrides: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for every override LLaMA-Factory has no argument for; imports llamafactory (seconds)."""
    from llamafactory.hparams.parser import _TRAIN_ARGS

    known = sorted({field.name for part in _TRAIN_ARGS for field in dataclasses.fields(part)})
    unknown = [key for key in overrides if key not in known]
    near = {key: difflib.get_close_matches(key, known, n=1) for key in unknown}
    return [
        Problem("", f"train.overrides.{key}", "LLaMA-Factory has no such argument",
                f"did you mean {near[key][0]}" if near[key] else "")
        for key in unknown
    ]  # fmt: skip


def training_config(
    train: Train, data_dir: Path, dataset_dir: Path, output_dir: Path, seed: int, *, cuda: bool, world: int = 1
) -> dict[str, Any]:
    """Return the LLaMA-Factory arguments of this training in ``world`` processes; every path absolute.

    Raises `UserError` for overrides and paths that LLaMA-Factory would misread.
    """
    rows = count_rows(dataset_dir / TRAIN)
    config = {**_model(train, cuda=cuda), **_method(train), **_schedule(train, seed)}
    config |= _files(data_dir, dataset_dir, output_dir, batch_size=train.batch_size)
    config |= parallel_arguments(train.launch.strategy, world, cuda=cuda)
    config |= _defaults(train, expected_steps(train, rows, world)) | dict(train.overrides)
    problems = check_overrides(train.overrides)
    problems += [Problem("", key, f"{value!r} holds ${{, which LLaMA-Factory would interpolate", "another path")
                 for key, value in config.items() if key not in train.overrides and _interpolates(value)]  # fmt: skip
    if problems:
        raise UserError(problems)
    return config


def expected_steps(train: Train, rows: int, world: int = 1) -> int:
    """Return the optimizer steps that ``world`` processes take together over ``rows`` rows."""
    if train.max_steps is not None:
        return train.max_steps
    per_epoch = math.ceil(math.ceil(rows / (train.batch_size * world)) / train.gradient_accumulation)
    return math.ceil(train.epochs * max(per_epoch, 1))


def write_yaml(path: Path, config: Mapping[str, Any], comment: str) -> None:
    """Write ``config`` so that PyYAML and OmegaConf read the same values: quoted strings, floats with a point."""
    body = yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)
    write_text(path, "".join(f"# {line}\n" for line in comment.splitlines()) + body)


def _model(train: Train, *, cuda: bool) -> dict[str, Any]:
    model = settled(train.model)
    config = {
        "model_name_or_path": resolve_model(model.path), "model_revision": model.revision, "template": model.template,
        "default_system": model.default_system, "image_max_pixels": model.image_max_pixels,
        "image_min_pixels": model.image_min_pixels,
        "bf16": model.dtype == "bfloat16", "fp16": model.dtype == "float16", "use_cpu": None if cuda else True,
    }  # fmt: skip
    return {key: value for key, value in config.items() if value is not None}


def _method(train: Train) -> dict[str, Any]:
    config: dict[str, Any] = {"stage": "sft", "do_train": True, "finetuning_type": train.method}
    if train.method == "lora":
        lora = train.lora
        config |= {"lora_rank": lora.rank, "lora_alpha": lora.alpha or 2 * lora.rank, "lora_dropout": lora.dropout,
                   "lora_target": lora.target}  # fmt: skip
    return config


def _schedule(train: Train, seed: int) -> dict[str, Any]:
    length = {"num_train_epochs": train.epochs} if train.max_steps is None else {"max_steps": train.max_steps}
    return {
        **length, "per_device_train_batch_size": train.batch_size,
        "gradient_accumulation_steps": train.gradient_accumulation, "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.scheduler, "warmup_ratio": train.warmup_ratio, "weight_decay": train.weight_decay,
        "train_on_prompt": train.train_on_prompt, "cutoff_len": train.cutoff_len, "seed": seed,
    }  # fmt: skip


def _files(data_dir: Path, dataset_dir: Path, output_dir: Path, *, batch_size: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "dataset": TRAIN, "dataset_dir": str(dataset_dir.resolve()), "media_dir": str(data_dir.resolve()),
        "output_dir": str(output_dir.resolve()),
        # A map cache is keyed by paths, not by the images' content: never reuse one.
        "overwrite_cache": True,
    }  # fmt: skip
    if (dataset_dir / VALIDATION).is_dir():
        config |= {"eval_dataset": VALIDATION, "do_eval": True, "per_device_eval_batch_size": batch_size}
    return config


def _defaults(train: Train, steps: int) -> dict[str, Any]:
    """Return keys that ``train.overrides`` may replace."""
    return {
        "logging_steps": max(1, steps // _LOG_LINES), "save_strategy": "no", "plot_loss": True, "report_to": "none",
        # Ranks wait for the first one's tokenising; the default of half an hour ends long runs.
        "ddp_timeout": _FOREVER_S,
        "disable_gradient_checkpointing": is_small(train.model),
    }  # fmt: skip


def _interpolates(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_interpolates(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_interpolates(part) for part in value)
    return isinstance(value, str) and "${" in value


class _Dumper(yaml.SafeDumper):
    """Quotes every string value, so that no reader takes `1e5` or `no` for anything else."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = text.isidentifier() and text.lower() not in {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _quoted)
