"""What a frozen hybrid is worth on the test users: its own metrics, those without its parts, paired tests."""

from collections.abc import Mapping
from dataclasses import dataclass

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import ProtocolConfig
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.comparison import ComparisonPlan, as_difference, compare
from msr_adapter.evaluate.hybrid.fitting import HYBRID, FrozenHybrid, weighed
from msr_adapter.evaluate.hybrid.members import TRAINED
from msr_adapter.evaluate.metrics_file import Difference, EvaluationFinding, HybridAblation, HybridEntry
from msr_adapter.evaluate.model_metrics import Judged, judge
from msr_adapter.evaluate.text_tables import weights_text
from msr_adapter.metrics import label


@dataclass(frozen=True)
class HybridJob:
    """On what a hybrid is judged."""

    protocol: ProtocolConfig
    held_out: HeldOut
    """The test candidates."""
    seed: int


def judge_hybrid(
    job: HybridJob, frozen: FrozenHybrid, scores: Mapping[str, Floats], judged: Mapping[str, Judged]
) -> HybridEntry:
    """Test the hybrid, which is among the ``judged`` models, against each of them but the oracle, and its ablations.

    ``scores``: model -> what ranks the test candidates (n,).
    """
    file, protocol = frozen.file, job.protocol
    without = {
        name: judge(protocol, job.held_out, weighed(fit, scores, job.held_out.offsets))
        for name, fit in file["ablations"].items()
    }
    models = {name: one for name, one in judged.items() if name != "oracle"} | without
    if models[TRAINED].trainings:  # the hybrid weighs the first training, and is tested against that
        models[TRAINED] = judge(protocol, job.held_out, scores[TRAINED])
    primary = protocol.primary_metric
    compared = compare(models, HYBRID, ComparisonPlan.of(protocol, [primary], job.seed))
    differences: dict[str, Difference] = {}
    for row in compared.differences:  # each is the other model minus the hybrid
        found = as_difference(row)
        differences[row.model] = {**found, "mean": -row.mean, "low": -row.high, "high": -row.low}
    ablations: dict[str, HybridAblation] = {
        name: {"fit": file["ablations"][name], "metrics": one.summary} for name, one in without.items()
    }
    return {"users": file["users"], "rows": file["rows"], "digest": file["digest"], "fit": file["full"],
            "ablations": ablations, "differences": differences}  # fmt: skip


def hybrid_findings(entry: HybridEntry, judged: Mapping[str, Judged], primary: str) -> list[EvaluationFinding]:
    """Say what the hybrid is made of, and whether it is above the best of its members."""
    ours = judged[HYBRID].summary[primary]["mean"]
    rivals = {name: ours - entry["differences"][name]["mean"] for name in entry["fit"]["weights"]}
    best = max(rivals, key=lambda name: rivals[name])
    gap = entry["differences"][best]
    sure = gap["p_adjusted"] < 0.05 and gap["low"] > 0
    verdict = "is above" if sure else "cannot be told apart from" if gap["high"] > 0 else "is below"
    text = (
        f"The hybrid {verdict} {best}, the best of its members, in {label(primary)}: {ours:.3f} against "
        f"{rivals[best]:.3f}, {gap['mean']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f}). It is "
        f"{weights_text(entry['fit']['weights'])}, fitted on {entry['users']:,} validation users and frozen "
        f"(`{entry['digest'][:8]}`) before a score of the test was read."
    )
    return [{"severity": "info", "text": text}]
