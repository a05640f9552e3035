"""The report's first sentence: is the trained model better than the strongest of the others, by how much, how sure."""

from typing import Literal, NamedTuple

from msr_adapter.errors import plural
from msr_adapter.evaluate.baselines.catalogue import BASELINES
from msr_adapter.evaluate.metrics_file import MetricsFile
from msr_adapter.evaluate.text_tables import p_text
from msr_adapter.metrics import label

FEW_USERS = 30
"""Below, an interval over users says little more than that there are few."""


class Verdict(NamedTuple):
    """What a reader takes away."""

    kind: Literal["better", "worse", "unclear", "alone"]
    text: str
    """One short sentence."""
    detail: str
    """The numbers behind it."""


def verdict(metrics: MetricsFile) -> Verdict:
    """Compare the trained model with the model or baseline of the highest primary metric, the oracle left out."""
    primary, users = metrics["primary"], plural(metrics["users"], "test user")
    ours = metrics["models"]["trained"]["metrics"][primary]
    level = f"{metrics['protocol']['confidence']['level']:.0%}"
    rivals = {name: entry["metrics"][primary]["mean"] for name, entry in metrics["models"].items()
              if name in metrics["differences"] and name != "oracle"}  # fmt: skip
    if not rivals:
        text = "The trained model has nothing to be compared with: no baseline was asked for."
        detail = f"{label(primary)} {ours['mean']:.3f} ({level} interval {ours['low']:.3f} to {ours['high']:.3f})"
        return Verdict("alone", text, f"{detail} over {users}; guessing gets {metrics['chance'][primary]:.3f}.")
    rival = max(rivals, key=lambda name: rivals[name])
    gap = metrics["differences"][rival]
    strongest = f"{_named(rival)}, the strongest of {len(rivals)} baselines" if len(rivals) > 1 else _named(rival)
    numbers = (
        f"{label(primary)} {ours['mean']:.3f} against {rivals[rival]:.3f}: {gap['mean']:+.3f} ({level} interval "
        f"{gap['low']:+.3f} to {gap['high']:+.3f}, adjusted p {p_text(gap['p_adjusted'])}) over {users}."
    )
    # The interval alone is not adjusted for the number of models: both have to agree before anything is claimed.
    sure = gap["p_adjusted"] < 1 - metrics["protocol"]["confidence"]["level"]
    if sure and gap["low"] > 0:
        return Verdict("better", f"The trained model is better than {strongest}.", numbers)
    if sure and gap["high"] < 0:
        return Verdict("worse", f"The trained model is worse than {strongest}.", numbers)
    if metrics["users"] < FEW_USERS:
        users = plural(metrics["users"], "user")
        are = "is" if metrics["users"] == 1 else "are"
        text = f"{users} {are} too few to tell the trained model apart from {strongest}."
        return Verdict("unclear", text, f"{numbers} Test more users before you base a decision on it.")
    return Verdict("unclear", f"The trained model cannot be told apart from {strongest}.", numbers)


def _named(model: str) -> str:
    """Return what a sentence calls a model."""
    return next((row.label for row in BASELINES if row.name == model), model)
