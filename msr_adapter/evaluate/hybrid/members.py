"""What the members of a hybrid say of the validation users' candidates."""

from collections.abc import Mapping
from pathlib import Path

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import EvaluateConfig
from msr_adapter.errors import StageError
from msr_adapter.evaluate.baselines.catalogue import row_of
from msr_adapter.evaluate.baselines.fitting import VALIDATION, read_fitted
from msr_adapter.evaluate.baselines.training_log import BaselineInputs
from msr_adapter.evaluate.candidates import HeldOut, read_scores
from msr_adapter.model_scores import ranking_scores

TRAINED = "trained"


def member_scores(
    config: EvaluateConfig, held_out: HeldOut, data_dir: Path, folders: Mapping[str, Path], seed: int
) -> dict[str, Floats]:
    """Return member -> what ranks the candidates (n,) of the validation users ``held_out``.

    ``folders``: `trained`, where the model's scores of these users are, and `baselines`, those of the fitted baselines.
    Raises StageError where they do not fit, and where the data cannot tell what a member ranks by.
    """
    assert config.hybrid is not None, "no hybrid is asked for"
    inputs, found = BaselineInputs(held_out, data_dir, config, seed), dict[str, Floats]()
    for name in config.hybrid.of:
        if name == TRAINED:
            found[name] = ranking_scores(read_scores(held_out, name, folders[TRAINED]))
            continue
        row = row_of(name)
        if row.fitting is not None:
            found[name] = read_fitted(name, held_out, folders["baselines"], VALIDATION)
            continue
        values = row.score and row.score(inputs)
        if values is None:
            step = f"Leave {name} out of evaluate.hybrid.of"
            raise StageError(f"the hybrid has no scores of {name}", row.without or "the data cannot tell", step)
        found[name] = values
    return found
