"""The report's first sentence: what it claims, and when it claims nothing."""

from typing import Any

import pytest

from msr_adapter.report.verdict import verdict


def value(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


def metrics(gaps: dict[str, tuple[float, float, float, float]], users: int = 200) -> Any:
    """Return what the verdict reads of `metrics.json`; model -> its mean, and low, high and p of trained minus it."""
    models = {"trained": value(0.5), **{name: value(mean) for name, (mean, *_) in gaps.items()}}
    return {
        "primary": "ndcg@10", "users": users, "chance": {"ndcg@10": 0.2}, "protocol": {"confidence": {"level": 0.95}},
        "models": {name: {"metrics": {"ndcg@10": each}} for name, each in models.items()},
        "differences": {
            name: {"mean": 0.5 - mean, "low": low, "high": high, "p": p / 2, "p_adjusted": p}
            for name, (mean, low, high, p) in gaps.items()
        },
    }  # fmt: skip


STRONGEST = "item-kNN, the strongest of 2 baselines."
POPULARITY = (0.3, 0.1, 0.3, 0.001)


@pytest.mark.parametrize(
    ("rival", "kind", "text"),
    [
        ((0.4, 0.05, 0.15, 0.002), "better", "The trained model is better than " + STRONGEST),
        ((0.6, -0.15, -0.05, 0.002), "worse", "The trained model is worse than " + STRONGEST),
        ((0.49, -0.02, 0.04, 0.6), "unclear",
         "The trained model cannot be told apart from " + STRONGEST),
        # The interval excludes zero, but not after the adjustment for two comparisons.
        ((0.45, 0.001, 0.1, 0.07), "unclear",
         "The trained model cannot be told apart from " + STRONGEST),
    ],
)  # fmt: skip
def test_it_speaks_of_the_strongest_baseline_and_claims_what_both_tests_show(
    rival: tuple[float, float, float, float], kind: str, text: str
) -> None:
    found = verdict(metrics({"popularity": POPULARITY, "item-knn": rival}))
    assert (found.kind, found.text) == (kind, text)
    assert f"NDCG@10 0.500 against {rival[0]:.3f}: {0.5 - rival[0]:+.3f}" in found.detail
    assert f"adjusted p {rival[3]:.3f}) over 200 test users." in found.detail


def test_the_oracle_is_no_rival_and_one_baseline_is_not_called_the_strongest() -> None:
    found = verdict(metrics({"popularity": POPULARITY, "oracle": (0.9, -0.5, -0.3, 0.001)}))
    assert found.text == "The trained model is better than popularity alone."
    assert verdict(metrics({"base": (0.3, 0.1, 0.3, 0.001)})).text.endswith("than the model before fine-tuning.")


def test_few_users_are_named_and_nothing_is_claimed() -> None:
    found = verdict(metrics({"popularity": (0.45, -0.1, 0.2, 0.8)}, users=12))
    assert found.text == "12 users are too few to tell the trained model apart from popularity alone."
    assert "Test more users" in found.detail


def test_without_baselines_it_stands_alone() -> None:
    found = verdict(metrics({}))
    assert found.kind == "alone"
    assert "NDCG@10 0.500 (95% interval 0.450 to 0.550) over 200 test users; guessing gets 0.200." in found.detail
