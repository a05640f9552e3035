"""The training YAML that `llamafactory-cli train` accepts, from our `Train` config."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem, UserError, closest
from msr_adapter.files import write_text
from msr_adapter.filesystem import holds_pattern
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION, count_rows
from msr_adapter.llamafactory.family_recognition import resolve_template
from msr_adapter.llamafactory.finetuning_methods import check_method, check_start, method_arguments
from msr_adapter.llamafactory.installed import training_arguments
from msr_adapter.llamafactory.kernels import check_kernels, liger_arguments
from msr_adapter.llamafactory.model_weights import Weights, is_small, own_adapters, resolve_model, starting_weights
from msr_adapter.llamafactory.nodes import ONE_PROCESS, Node
from msr_adapter.llamafactory.objectives import check_objective, objective_arguments
from msr_adapter.llamafactory.parallelism import parallel_arguments

_LOG_LINES = 50
_FOREVER_S = 180_000_000

REFUSED = {
    **dict.fromkeys(
        ("model_name_or_path", "model_revision", "template", "default_system", "image_max_pixels",
         "image_min_pixels"), "set it under train.model"),
    **dict.fromkeys(("bf16", "fp16"), "set train.precision, or train.model.dtype"),
    **dict.fromkeys(
        ("finetuning_type", "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_dora", "use_rslora"),
        "set it under train.method and train.lora"),
    **dict.fromkeys(("adapter_name_or_path", "create_new_adapter"), "set it under train.start or train.model.adapter"),
    "quantization_bit": "set it under train.model.quantization",
    **dict.fromkeys(
        ("freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model", "additional_target"),
        "set it under train.freeze"),
    **dict.fromkeys(
        ("pref_beta", "pref_ftx", "dpo_label_smoothing", "simpo_gamma", "kto_chosen_weight", "kto_rejected_weight"),
        "set it under train.preference"),
    "pref_loss": "set it under train.preference.loss; with trl 0.24, LLaMA-Factory 0.9.5 treats any other as sigmoid",
    **dict.fromkeys(
        ("ref_model", "ref_model_adapters", "ref_model_quantization_bit"),
        "the reference is the model that training starts from (train.start)"),
    **dict.fromkeys(
        ("reward_model", "reward_model_adapters", "reward_model_quantization_bit", "reward_model_type", "ppo_epochs"),
        "there is no objective ppo"),
    **dict.fromkeys(
        ("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
         "learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "weight_decay", "cutoff_len",
         "train_on_prompt"), "set it with the field of the same meaning under train"),
    "train_sampling_strategy": "set train.batches",
    "seed": "set it with the pipeline's seed",
    **dict.fromkeys(
        ("deepspeed", "fsdp", "fsdp_config", "ddp_backend", "ray_num_workers", "master_addr", "master_port"),
        "set it under train.launch"),
    **dict.fromkeys(
        ("stage", "do_train", "dataset", "dataset_dir", "media_dir", "eval_dataset", "output_dir",
         "overwrite_output_dir", "resume_from_checkpoint"), "msr names these files itself"),
    **dict.fromkeys(
        ("save_strategy", "save_steps", "save_total_limit", "save_only_model", "load_best_model_at_end",
         "ignore_data_skip", "early_stopping_steps"), "train.checkpoints, train.keep and train.selection decide it"),
    **dict.fromkeys(
        ("tokenized_path", "overwrite_cache", "streaming", "max_samples", "val_size", "mix_strategy",
         "interleave_probs"), "it would train on rows other than the written data set"),
    **dict.fromkeys(
        ("use_fast_tokenizer", "split_special_tokens", "add_tokens", "add_special_tokens", "new_special_tokens_config",
         "resize_vocab", "enable_thinking", "tool_format", "image_do_pan_and_scan", "crop_to_patches", "mask_history"),
        "prompts would be encoded differently in training than in scoring"),
    **dict.fromkeys(
        ("pure_bf16", "pissa_init", "pissa_iter", "pissa_convert", "adapter_folder", "use_llama_pro",
         "mixture_of_depths", "train_from_scratch", "rope_scaling", "quantization_method", "quantization_type",
         "double_quantization", "quantization_device_map"),
        "the trained model would not be the one that is scored"),
    "packing": "rows would see each other; neat_packing keeps them apart",
    **dict.fromkeys(
        ("hf_hub_token", "ms_hub_token", "om_hub_token", "hub_token", "swanlab_api_key"),
        "secrets belong in no file: LLaMA-Factory's libraries read theirs from the environment (HF_TOKEN, ...)"),
}  # fmt: skip
"""LLaMA-Factory keys that ``train.overrides`` may not set, and why."""


def check_overrides(overrides: Mapping[str, object], where: str = "") -> list[Problem]:
    """Return a problem for every override that msr sets, that LLaMA-Factory does not know, or its reader misreads."""
    problems = [
        replace(problem, where=where)
        for problem in unknown_overrides(overrides)
        if problem.field.removeprefix("train.overrides.") not in REFUSED
    ]
    problems += [
        Problem(where, f"train.overrides.{key}", "cannot be set here", REFUSED[key])
        for key in overrides if key in REFUSED
    ]  # fmt: skip
    return problems + [
        Problem(where, f"train.overrides.{key}", f"{value!r} contains ${{, which LLaMA-Factory would interpolate")
        for key, value in overrides.items() if _interpolates(value)
    ]  # fmt: skip


def unknown_overrides(overrides: Mapping[str, object]) -> list[Problem]:
    """Return a problem for every override that the installed LLaMA-Factory has no argument for; imports nothing."""
    known = sorted(training_arguments())
    unknown = [key for key in overrides if known and key not in known]
    near = {key: closest(key, known) for key in unknown}
    return [
        Problem("", f"train.overrides.{key}", "LLaMA-Factory has no such argument",
                f"did you mean {near[key][0]}" if near[key] else "")
        for key in unknown
    ]  # fmt: skip


def check_paths(train: TrainConfig, start: Weights, run_dir: Path) -> list[Problem]:
    """Return a problem for every path that LLaMA-Factory cannot be told, however it is written."""
    adapters = {"train.model.adapter": own_adapters(train.model), "train.start": start.adapters}
    named = [(key, str(folder.resolve())) for key, folders in adapters.items() for folder in folders]
    named += [("train.model.path", train.model.path)]
    run_dir, step = run_dir.resolve(), "Choose another --run-dir"
    problems = [] if "::" not in str(run_dir) else [
        Problem(str(run_dir), "run_dir", "contains ::", "LLaMA-Factory's libraries read it as several addresses", step)
    ]  # fmt: skip
    if _interpolates(str(run_dir)):
        found = "contains ${, which LLaMA-Factory would interpolate"
        problems.append(Problem(str(run_dir), "run_dir", found, "", step))
    problems += [Problem("", key, f"{path} contains ${{, which LLaMA-Factory would interpolate", "",
                         "Rename the folder")
                 for key, path in named if _interpolates(path)]  # fmt: skip
    return problems + [
        Problem("", key, f"{path} contains a comma or ends in a blank", "LLaMA-Factory takes adapters as one text, "
                "split at commas and stripped", "Rename the folder")
        for key, path in named[:-1] if "," in path or path != path.strip()
    ]  # fmt: skip


def by_hand_problems(run_dir: Path) -> list[Problem]:
    """Return why `llamafactory-cli` by itself would not find the rows in a run folder."""
    if not holds_pattern(run_dir.resolve()):
        return []
    found = "contains [, *, ?, $ or ::, which llamafactory-cli would expand: it would find no rows, or another run's"
    step = "Train without --dry-run, where msr takes the path literally, or choose another --run-dir"
    return [Problem(str(run_dir), "run_dir", found, "", step)]


def training_config(
    train: TrainConfig, data_dir: Path, dataset_dir: Path, output_dir: Path, seed: int, place: Node = ONE_PROCESS
) -> dict[str, object]:
    """Return the LLaMA-Factory arguments of this training with as many processes as ``place`` says; absolute paths.

    Raises `UserError` for what this training cannot be, and for overrides and paths that LLaMA-Factory would misread.
    """
    start = starting_weights(train)
    rows, cuda = count_rows(dataset_dir / TRAIN), place.gpus > 0
    config = {
        **_model(train, start, cuda=cuda),
        "do_train": True,
        **objective_arguments(train),
        **method_arguments(train),
        **_schedule(train, seed),
    }
    config |= {
        "dataset": TRAIN, "dataset_dir": str(dataset_dir.resolve()), "media_dir": str(data_dir.resolve()),
        "output_dir": str(output_dir.resolve()),
        # A map cache is keyed by paths, not by the images' content: never reuse one.
        "overwrite_cache": True,
    }  # fmt: skip
    steps = expected_steps(train, rows, place.world)
    config |= parallel_arguments(train.launch, place.world, cuda=cuda)
    config |= _evaluation(train, dataset_dir) | _defaults(train, steps)
    config |= liger_arguments(train, cuda=cuda) | dict(train.overrides)
    config |= _checkpoints(train, steps, config["logging_steps"])
    problems = check_overrides(train.overrides) + check_objective(train) + check_method(train) + check_kernels(train)
    problems += check_start(train, start)
    problems += [Problem("", key, f"{value!r} contains ${{, which LLaMA-Factory would interpolate", "another path")
                 for key, value in config.items() if key not in train.overrides and _interpolates(value)]  # fmt: skip
    if problems:
        raise UserError(problems)
    return config


def expected_steps(train: TrainConfig, rows: int, world: int = 1) -> int:
    """Return the optimizer steps that ``world`` processes take together over ``rows`` rows."""
    if train.max_steps is not None:
        return train.max_steps
    per_epoch = math.ceil(math.ceil(rows / (train.batch_size * world)) / train.gradient_accumulation)
    return math.ceil(train.epochs * max(per_epoch, 1))


def write_yaml(path: Path, config: Mapping[str, object], comment: str) -> None:
    """Write ``config`` so that PyYAML and OmegaConf read the same values: quoted strings, floats with a point."""
    body = yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)
    write_text(path, "".join(f"# {line}\n" for line in comment.splitlines()) + body)


def _model(train: TrainConfig, start: Weights, *, cuda: bool) -> dict[str, object]:
    """Return the arguments that say which model is trained, from which weights, in which precision."""
    model, precision = resolve_template(train.model), train.compute_dtype
    adapters = [str(folder.resolve()) for folder in own_adapters(model) + start.adapters]
    config = {
        "model_name_or_path": str(start.full.resolve()) if start.full else resolve_model(model.path),
        "model_revision": None if start.full else model.revision, "template": model.template,
        # Merged into the model, which then is the reference of DPO and KTO; without a new adapter, the base would be.
        "adapter_name_or_path": ",".join(adapters) or None, "create_new_adapter": True if adapters else None,
        "default_system": model.default_system, "image_max_pixels": model.image_max_pixels,
        "image_min_pixels": model.image_min_pixels,
        "bf16": precision == "bfloat16", "fp16": precision == "float16", "use_cpu": None if cuda else True,
    }  # fmt: skip
    return {key: value for key, value in config.items() if value is not None}


def _schedule(train: TrainConfig, seed: int) -> dict[str, object]:
    length = {"num_train_epochs": train.epochs} if train.max_steps is None else {"max_steps": train.max_steps}
    return {
        **length, "per_device_train_batch_size": train.batch_size,
        "gradient_accumulation_steps": train.gradient_accumulation, "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.scheduler, "warmup_ratio": train.warmup_ratio, "weight_decay": train.weight_decay,
        "cutoff_len": train.cutoff_len, "seed": seed,
        **({"train_sampling_strategy": "group_by_length"} if train.batches == "similar-length" else {}),
    }  # fmt: skip


def _evaluation(train: TrainConfig, dataset_dir: Path) -> dict[str, object]:
    """Return the validation rows if the overrides ask LLaMA-Factory for a loss on them: encoding them costs time."""
    overrides = train.overrides
    asked = overrides.get("do_eval") or overrides.get("eval_strategy") not in (None, False, "no")
    if not asked or not (dataset_dir / VALIDATION).is_dir():
        return {}
    return {"eval_dataset": VALIDATION, "per_device_eval_batch_size": train.batch_size}


def _defaults(train: TrainConfig, steps: int) -> dict[str, object]:
    """Return keys that ``train.overrides`` may replace."""
    # About a fiftieth of the steps; a divisor of an interval of checkpoints that was asked for: see `_checkpoints`.
    wanted, saved = max(1, steps // _LOG_LINES), train.checkpoint_steps
    every = wanted if saved is None else max(each for each in range(1, wanted + 1) if saved % each == 0)
    return {
        "logging_steps": every, "plot_loss": True, "report_to": "none",
        "include_num_input_tokens_seen": "non_padding",
        # Ranks wait for the first one's tokenising; the default of half an hour ends long runs.
        "ddp_timeout": _FOREVER_S,
        "disable_gradient_checkpointing": is_small(train.model),
    }  # fmt: skip


def _checkpoints(train: TrainConfig, steps: int, logging_steps: object) -> dict[str, object]:
    """Return when states are saved: always with a line of the log, whose mean a resumed training continues exactly."""
    if not train.checkpoints and train.checkpoint_steps is None:
        return {"save_strategy": "no"}
    line = logging_steps if isinstance(logging_steps, int) and logging_steps > 0 else 1
    every = train.checkpoint_steps or line * math.ceil(steps / max(train.checkpoints, 1) / line)
    # The one before the last stays: several processes do not end their parts of a checkpoint at the same time.
    return {"save_strategy": "steps", "save_steps": every, "save_total_limit": 2 if train.keep == "last" else None}


def _interpolates(value: object) -> bool:
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
