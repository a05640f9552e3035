"""The weights of a hybrid: fitted on validation users, written down, and what they make of any candidates' scores.

`hybrid.json` is written before a score of the test is read, and holds the digest of what it says (`HybridFile`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from msr_adapter.arrays import Floats, Labels, Rows
from msr_adapter.config.schema import EvaluateConfig, HybridConfig
from msr_adapter.errors import Problem, StageError, UserError, plural
from msr_adapter.evaluate.baselines.catalogue import BASELINES
from msr_adapter.evaluate.candidates import read_some
from msr_adapter.evaluate.hybrid.members import TRAINED, member_scores
from msr_adapter.evaluate.hybrid.regression import FOLDS, INVERSE_PENALTIES, cross_validate, standardised
from msr_adapter.evaluate.metrics_file import HybridWeights
from msr_adapter.evaluate.text_tables import weights_text
from msr_adapter.files import digest, read_json_object, write_json
from msr_adapter.stage_arguments import Job

HYBRID, FILE = "hybrid", "hybrid.json"
LEAST_USERS, USERS_PER_MEMBER = 50, 10
"""Below, weights are mostly chance: ten positives a weight is the rule of thumb for logistic regression (Peduzzi et
al., 1996), and folds of ten users tell one penalty from another at all."""


class HybridFile(TypedDict):
    """The content of `hybrid.json`."""

    users: int
    """Validation users it was fitted on."""
    rows: int
    """Their candidates."""
    folds: int
    full: HybridWeights
    ablations: Mapping[str, HybridWeights]
    """`without-ids`, ... -> the same fitted without some members."""
    digest: str
    """Of all else here."""


@dataclass(frozen=True)
class FrozenHybrid:
    """What was fitted, and can no longer change."""

    file: HybridFile

    def scores(self, members: Mapping[str, Floats], offsets: Rows) -> Floats:
        """Return log-odds (n,) of candidates by what the ``members`` say of them (n,); lists begin at ``offsets``."""
        return weighed(self.file["full"], members, offsets)


def weighed(found: HybridWeights, members: Mapping[str, Floats], offsets: Rows) -> Floats:
    """Return log-odds (n,) under one fit."""
    features = standardised([members[name] for name in found["weights"]], offsets)
    return np.asarray(features @ np.array(list(found["weights"].values())) + found["intercept"])


def ids_of(config: HybridConfig) -> tuple[str, ...]:
    """Return the members that learn from who interacted with which item: those that are fitted to the log."""
    fitted = {row.name for row in BASELINES if row.fitting is not None}
    return tuple(name for name in config.of if name in fitted)


def ablations_of(config: HybridConfig) -> dict[str, tuple[str, ...]]:
    """Return ablation -> its members; none that leaves all members or nobody."""
    without = {f"without-{TRAINED}": (TRAINED,), "without-ids": ids_of(config)}
    found = {name: tuple(one for one in config.of if one not in gone) for name, gone in without.items()}
    return {name: left for name, left in found.items() if left and left != config.of}


def least_users(config: HybridConfig) -> int:
    """Return how many validation users the weights need."""
    return max(LEAST_USERS, USERS_PER_MEMBER * len(config.of))


def freeze_hybrid(config: EvaluateConfig, data_dir: Path, folders: Mapping[str, Path], job: Job) -> FrozenHybrid:
    """Fit the hybrid and its ablations on validation users and write `hybrid.json` into ``job.out``.

    ``folders``: see `member_scores`. Nothing of the test is read. Raises `UserError` where there are too few users.
    """
    asked = config.hybrid
    assert asked is not None, "no hybrid is asked for"
    held_out = read_some(data_dir, asked.users, job.seed)
    users = 0 if held_out is None else len(held_out.example_ids)
    if held_out is None or users < least_users(asked):
        raise UserError(too_few(users, asked))
    members = member_scores(config, held_out, data_dir, folders, job.seed)
    for name, values in members.items():
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            found = f"{count} of {len(values)} scores of {name} on validation users are not finite"
            raise StageError(found, "a fit or a training diverged", f"Leave {name} out of evaluate.hybrid.of")
    wanted = {HYBRID: asked.of, **ablations_of(asked)}
    with job.reporter.track("weighing the hybrid", len(wanted)) as advance:
        fits = {}
        for name, left in wanted.items():
            fits[name] = fit_weights({one: members[one] for one in left}, held_out.labels, held_out.offsets, job.seed)
            advance(1)
    full = fits.pop(HYBRID)
    content = {"users": users, "rows": held_out.table.num_rows, "folds": FOLDS, "full": full, "ablations": fits}
    file = cast("HybridFile", content | {"digest": digest(content)})
    write_json(job.out / FILE, {**file})
    told = f"fitted on {plural(users, 'validation user')}, frozen as {file['digest'][:8]}"
    job.reporter.note(f"  hybrid: {weights_text(full['weights'])}; {told}")
    return FrozenHybrid(file)


def fit_weights(members: Mapping[str, Floats], labels: Labels, offsets: Rows, seed: int) -> HybridWeights:
    """Fit ``labels`` (n,) to what the ``members`` say (n,), standardised within each list."""
    features = standardised(list(members.values()), offsets)
    found = cross_validate(features, labels.astype(np.float64), offsets, seed)
    return {
        "weights": dict(zip(members, found.fit.weights.tolist(), strict=True)),
        "intercept": found.fit.intercept,
        "inverse_penalty": found.inverse_penalty,
        "tried": [
            {"inverse_penalty": c, "left_out_loss": loss}
            for c, loss in zip(INVERSE_PENALTIES, found.losses, strict=True)
        ],
    }


def too_few(users: int, config: HybridConfig, where: str = "") -> Problem:
    """Return the problem of a hybrid with so few validation ``users``."""
    found = f"its weights are fitted on validation users, and there {'is' if users == 1 else 'are'} {users or 'none'}"
    allowed = (f"at least {least_users(config)} for {plural(len(config.of), 'member')}: ten positives a weight, and "
               f"{LEAST_USERS} in any case")  # fmt: skip
    step = ("Give the split a larger validation part (split.fractions, split.validation_from), raise "
            "evaluate.hybrid.users, or set evaluate.hybrid: null")  # fmt: skip
    return Problem(where, "evaluate.hybrid", found, allowed, step)


def read_hybrid(folder: Path) -> FrozenHybrid:
    """Read the hybrid that an evaluation in ``folder`` froze; `UserError` where it did not, or the file was changed."""
    path = folder / FILE
    found = read_json_object(path)
    told = {key: value for key, value in found.items() if key != "digest"}
    if not found or digest(told) != found.get("digest"):
        said = "damaged or changed by hand" if found else "no hybrid was fitted in this run"
        step = "Set evaluate.hybrid: {of: [trained, ...]} and run `msr evaluate` first"
        raise UserError(Problem(str(path), "", said, "", "Run `msr evaluate ... --force evaluate`" if found else step))
    return FrozenHybrid(cast("HybridFile", found))
