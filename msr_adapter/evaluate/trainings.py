"""What several trainings of one model tell: each one's metrics, their spread, how many a difference needs."""

from collections.abc import Mapping, Sequence

import numpy as np

from msr_adapter.errors import plural
from msr_adapter.evaluate.metrics_file import EvaluationFinding, TrainingsEntry, TrainingSpreadEntry
from msr_adapter.evaluate.model_metrics import Judged
from msr_adapter.metrics import crossed_difference, crossed_mean, label


def trainings_entry(models: Mapping[str, Judged], seeds: Sequence[int], primary: str) -> TrainingsEntry:
    """Return what `metrics.json` says of the trainings of the model `trained`, which was judged over all of them."""
    judged, spread = models["trained"], dict[str, TrainingSpreadEntry]()
    for name, values in judged.trainings.items():
        (one,) = crossed_mean(values).spreads
        spread[name] = {"deviation": one.deviation, "observed": float(np.sqrt(one.between))}
    means = {name: values.mean(axis=1).tolist() for name, values in judged.trainings.items()}
    differences = {
        name: crossed_difference(judged.trainings[primary], other.values[primary][None])
        for name, other in models.items()
        if name not in ("trained", "hybrid")
    }
    needed = {name: found.trainings_needed() for name, found in differences.items()}
    return {"seeds": list(seeds), "means": means, "spread": spread, "needed": needed}


def trainings_finding(entry: TrainingsEntry, primary: str) -> EvaluationFinding:
    """Say what the trainings reached and how they spread."""
    each, spread = entry["means"][primary], entry["spread"][primary]
    seeds = ", ".join(str(seed) for seed in entry["seeds"])
    text = (
        f"The trained model is the mean of {plural(len(each), 'training')} (seeds {seeds}): {label(primary)} "
        f"{min(each):.3f} to {max(each):.3f}, standard deviation {spread['observed']:.3f}, of which "
        f"{spread['deviation']:.3f} is no chance of the users. Its intervals and tests cover users and trainings; "
        "slices, curves, calibration, examples and what is recommended are the first training's."
    )
    return {"severity": "info", "text": text}
