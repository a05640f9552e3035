"""What training teaches, as one table: LLaMA-Factory's stage, the shape of the rows, what it needs and cannot use."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from msr_adapter.config.schema.train import Objective, PreferenceConfig, TrainConfig
from msr_adapter.errors import Problem
from msr_adapter.llamafactory.dataset import Shape
from msr_adapter.llamafactory.family_recognition import limits_of


def _dpo_arguments(train: TrainConfig) -> dict[str, object]:
    preference = train.preference
    return {**_shared_arguments(preference), "pref_loss": preference.loss,
            "dpo_label_smoothing": preference.label_smoothing, "simpo_gamma": preference.simpo_gamma}  # fmt: skip


def _kto_arguments(train: TrainConfig) -> dict[str, object]:
    preference = train.preference
    return {**_shared_arguments(preference), "kto_chosen_weight": preference.right_weight,
            "kto_rejected_weight": preference.wrong_weight}  # fmt: skip


def _shared_arguments(preference: PreferenceConfig) -> dict[str, object]:
    return {"pref_beta": preference.beta, "pref_ftx": preference.supervised}


@dataclass(frozen=True)
class TrainingObjective:
    """One value of `train.objective`, with all that depends on it."""

    name: Objective
    stage: str
    """LLaMA-Factory's name for it."""
    shape: Shape
    """Of a training row."""
    sequences: int
    """How often a row's prompt is in a batch: once for each answer that the loss reads."""
    arguments: Callable[[TrainConfig], dict[str, object]] = lambda _: {}
    """LLaMA-Factory arguments beside the stage."""
    compares: Callable[[TrainConfig], bool] = lambda _: False
    """Whether the loss compares the model with the one that training started from."""
    trains_prompts: bool = False
    """The loss may cover prompts too."""
    smooths_labels: bool = False
    """It takes label smoothing where it compares with the starting model."""
    smallest_batch: int = 1
    value_head: bool = False
    """It trains a value head. LLaMA-Factory saves that apart: such a training cannot be continued from a checkpoint or
    judged while it runs, and the model has no answers to export."""


OBJECTIVES: tuple[TrainingObjective, ...] = (
    TrainingObjective(
        "sft", "sft", "answers", 1, lambda train: {"train_on_prompt": train.train_on_prompt}, trains_prompts=True
    ),
    TrainingObjective(
        "dpo", "dpo", "pairs", 2, _dpo_arguments,
        # orpo and simpo work without a reference model.
        compares=lambda train: train.preference.loss == "sigmoid", smooths_labels=True,
    ),
    # LLaMA-Factory pairs each row with the answer of another one, to measure how far the model went as a whole.
    TrainingObjective("kto", "kto", "judged", 2, _kto_arguments, compares=lambda _: True, smallest_batch=2),
    TrainingObjective("reward", "rm", "pairs", 2, value_head=True),
)  # fmt: skip


def objective_of(train: TrainConfig) -> TrainingObjective:
    """Return the row of `train.objective`."""
    return next(row for row in OBJECTIVES if row.name == train.objective)


def objective_arguments(train: TrainConfig) -> dict[str, object]:
    """Return the LLaMA-Factory arguments that say what is learned."""
    row = objective_of(train)
    return {"stage": row.stage, **row.arguments(train)}


def check_objective(train: TrainConfig) -> list[Problem]:
    """Return a problem for every setting that the objective cannot use, and for models that it cannot train."""
    row, problems = objective_of(train), []
    if train.train_on_prompt and not row.trains_prompts:
        allowed = f"true only with objective: {_names(row.name for row in OBJECTIVES if row.trains_prompts)}"
        problems.append(Problem("", "train.train_on_prompt", f"the loss of {row.name} covers only answers", allowed))
    if train.batches != "random" and row.name != "sft":
        found = f"{train.batches}: LLaMA-Factory gives the rows of {row.name} no length to sort by"
        problems.append(Problem("", "train.batches", found, f"random with objective: {row.name}"))
    if train.preference.label_smoothing and not (row.smooths_labels and row.compares(train)):
        found = "only loss sigmoid of objective dpo uses it"
        problems.append(Problem("", "train.preference.label_smoothing", found, "0"))
    if train.batch_size < row.smallest_batch:
        found = f"{train.batch_size}: {row.name} measures in each batch how far the model has moved as a whole"
        allowed = f"at least {row.smallest_batch}, preferably 8, with objective: {row.name}"
        problems.append(Problem("", "train.batch_size", found, allowed))
    if row.value_head and train.selection.patience is not None:
        found = "a reward model cannot be judged while it trains"
        problems.append(Problem("", "train.selection.patience", found, f"null with objective: {row.name}"))
    if train.asks_text:
        problems += _check_text(train, row)
    limits = limits_of(train.model)
    if reason := limits.get(row.name):
        others = _names(other.name for other in OBJECTIVES if other.name not in limits)
        found = f"{row.name} cannot train {train.model.path}: {reason}"
        problems.append(Problem("", "train.objective", found, f"{others} for this model"))
    return problems


def _check_text(train: TrainConfig, row: TrainingObjective) -> list[Problem]:
    """Return a problem for an objective under which no text can be learned, and for what it cannot use of an answer."""
    found, allowed = "", "sft, or dpo" if train.question == "next-item-text" else "sft"
    if row.name in ("kto", "reward"):
        found = f"{row.name} compares the answers Yes and No, but question: {train.question} has no such answers"
    elif row.name == "dpo" and train.question == "user-text":
        found = "dpo prefers one answer to a prompt to another, but question: user-text has one answer, the user's text"
    if found:
        return [Problem("", "train.objective", found, allowed, f"Set train.objective: {allowed}")]
    if row.name != "sft" and train.text_answer.without_evidence:
        said = f"{row.name} compares texts for one user, and these rows have none"
        return [Problem("", "train.text_answer.without_evidence", said, f"0 with objective: {row.name}")]
    return []


def _names(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
