"""The report's words and tables from `metrics.json` and the manifests, by hand."""

import pytest

from msr_adapter.pipeline.stages import LABELS, STAGES
from msr_adapter.report.cost import cost_rows, duration, engine_lines, prefix_sharing_lines
from msr_adapter.report.sections import headline, run_line, smallest_line
from msr_adapter.report.svg import looks
from msr_adapter.report.tables import (
    Cell,
    ModelRow,
    ModelTable,
    beyond_accuracy_table,
    calibration_table,
    compared_models,
    slice_metric,
    slice_table,
)


def value(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


CUT = {
    "name": "history length",
    "groups": [
        {"value": "1-3", "users": 1200, "models": {"trained": {"gauc": value(0.7), "hr@5": value(0.5)},
                                                   "popularity": {"gauc": value(0.6)}}},
        {"value": "4-", "users": 8, "small": True, "models": {"trained": {"gauc": value(0.8)}}},
    ],
}  # fmt: skip


def test_a_slice_is_seen_by_the_metric_that_all_groups_have() -> None:
    assert slice_metric(CUT, "auc") == "gauc"
    assert slice_metric({"groups": []}, "auc") is None
    assert slice_metric({"groups": [{"models": {"a": {"x": {}}}}, {"models": {"a": {"y": {}}}}]}, "auc") is None


def test_rows_of_a_slice_have_a_dash_where_a_model_is_not_judged() -> None:
    table = slice_table(CUT, "gauc")
    assert (table.name, table.metric, table.models) == ("history length", "GAUC", ["trained", "popularity"])
    first, second = table.rows
    assert (first.users, first.cells[1]) == ("1,200", Cell("popularity", "0.600", ".500 – .700"))
    assert second.users == "8, few"
    assert second.cells == [Cell("trained", "0.800", ".700 – .900"), Cell("popularity", "–", "")]


def test_slices_compare_the_trained_model_with_popularity_and_the_best_other_one() -> None:
    means = {"trained": 0.7, "base": 0.4, "popularity": 0.5, "sasrec": 0.8, "random": 0.9, "oracle": 0.99}
    metrics = {"primary": "auc", "models": {name: {"metrics": {"auc": value(mean)}} for name, mean in means.items()}}
    groups = [{"models": {name: {} for name in means}}]
    assert compared_models({"groups": groups}, metrics) == ["trained", "popularity", "sasrec"]


def test_calibration_and_beyond_show_what_was_asked_for() -> None:
    metrics = {
        "calibration": {"trained": {"brier": 0.1234, "bins": []}, "base": {"brier": 0.2, "ece": 0.5, "bins": []}}
    }
    rows = [ModelRow("trained", ["0.123", "–"]), ModelRow("base", ["0.200", "0.500"])]
    assert calibration_table(metrics) == ModelTable(["Brier score", "Calibration error"], rows, [])
    assert calibration_table({}) is calibration_table({"calibration": {"trained": {"bins": []}}}) is None
    shown = {"coverage@3": 0.1, "coverage@5": 0.25, "popularity@5": 1234.5, "odd@5": 0.5}
    notes = [
        "Coverage: share of the catalogue that reaches a top-5",
        "Popularity: mean number of training interactions of a top-5 item",
    ]
    assert beyond_accuracy_table({"beyond": {"trained": shown}}, 5) == ModelTable(
        ["Coverage@5", "Popularity@5", "odd@5"], [ModelRow("trained", ["0.250", "1,234.5", "0.500"])], notes
    )
    other = beyond_accuracy_table({"beyond": {"trained": shown}}, 20)
    assert other is not None
    assert other.names == ["Coverage@3"]  # the first depth there is
    assert beyond_accuracy_table({"beyond": {}}, 5) is None


def test_the_headline_says_what_the_target_is() -> None:
    metrics = {"users": 50, "primary": "hr@5", "protocol": {"target": "last"},
               "candidates": {"targets": 50, "smallest": 7, "largest": 7},
               "models": {"trained": {"metrics": {"hr@5": value(0.5)}}}, "chance": {"hr@5": 0.25}}  # fmt: skip
    ending = "among the first 5 for 50% of 50 held-out users; guessing for 25%."
    assert headline(metrics) == (
        "Given 7 candidates, one of which the user really interacted with next, the trained model ranks that item "
        f"{ending}"
    )
    published = headline(metrics | {"protocol": {"target": "most-popular-last"}})
    assert "one of which is the latest of the user's most popular items, the trained" in published
    popular = {"metrics": {"hr@5": value(0.4)}}
    rival = headline(metrics | {"models": {**metrics["models"], "popularity": popular}})
    assert rival.endswith("for 50% of 50 held-out users; popularity alone for 40%, guessing for 25%.")
    several = headline(metrics | {"candidates": {"targets": 51, "smallest": 7, "largest": 9}})
    assert several.startswith("Given 7 to 9 candidates, one or more of which the user really interacted with, the ")
    assert several.endswith(f"ranks one of these {ending}")


def test_the_headline_leads_with_the_primary_metric_and_gauc() -> None:
    values = {name: value(mean) for name, mean in (("auc", 0.9), ("gauc", 0.8), ("ndcg@10", 0.7), ("hr@5", 0.6))}
    metrics = {"users": 50, "primary": "ndcg@10", "protocol": {"target": "last"},
               "candidates": {"targets": 50, "smallest": 7, "largest": 7},
               "models": {name: {"metrics": values} for name in ("trained", "popularity")},
               "chance": {"auc": 0.5, "gauc": 0.5, "ndcg@10": 0.4, "hr@5": 0.3}}  # fmt: skip
    assert headline(metrics).endswith(
        "the trained model reaches NDCG@10 0.700 and GAUC 0.800 over 50 held-out users (popularity alone 0.700 and "
        "0.800, guessing 0.400 and 0.500); it ranks that item among the first 5 for 60%; popularity alone for 60%, "
        "guessing for 30%."
    )
    alone = headline(metrics | {"chance": {"ndcg@10": 0.4}, "models": {"trained": {"metrics": values}}})
    assert alone.endswith("the trained model reaches NDCG@10 0.700 over 50 held-out users (guessing 0.400).")


def test_the_smallest_difference_is_a_sentence() -> None:
    metrics = {"users": 1500, "primary": "auc", "smallest_difference": {"base": 0.0123, "random": 0.02},
               "differences": {"base": {}, "random": {}, "oracle": {}}}  # fmt: skip
    assert "With 1,500 users" in smallest_line(metrics)
    assert "a two-sided test at the 5% level, adjusted for the 3 comparisons, detects" in smallest_line(metrics)
    assert "in AUC four times out of five if it is at least 0.012 to base, 0.020 to random." in smallest_line(metrics)
    assert smallest_line({}) == ""


def test_what_was_run_leaves_out_what_is_not_known() -> None:
    candidates = {"rows": 2100, "digest": "b" * 64}
    metrics = {"protocol": {"name": "next-item"}, "protocol_digest": "a" * 64, "candidates": candidates, "seed": 7,
               "versions": {}}  # fmt: skip
    bare = [("Protocol", "next-item · aaaaaaaa"), ("Candidates", "2,100 · bbbbbbbb"), ("Seed", "7")]
    assert run_line(metrics, {}, {}) == bare
    config = {"data": {"source": {"kind": "table", "interactions": "/far/away/log.csv"}},
              "train": {"model": {"path": "tiny"}, "method": "lora"}}  # fmt: skip
    counts = {"users_kept": 1000, "items_kept": 20}
    assert run_line(metrics | {"versions": {"msr": "1"}}, config, counts) == [
        ("Data", "table, log.csv, 1,000 users, 20 items"), ("Recommender", "tiny, lora"), *bare, ("Version", "msr 1"),
    ]  # fmt: skip


def test_cost_adds_up_what_the_manifests_say() -> None:
    items = {"seconds": 30, "peak_bytes": 3 * 2**29, "summary": {"distinct_requests": 10, "computed": 8, "cached": 2,
             "tokens_in": 1000, "tokens_out": 50}}  # fmt: skip
    score = {"seconds": 31.6, "peak_bytes": 2**20, "peak_gpu_bytes": 2**31, "summary": {"computed": 5, "cached": 1,
             "tokens_in": 234}}  # fmt: skip
    first, second, third, total = cost_rows(
        {"score": score, "items": items, "baselines": {}, "evaluate": {"seconds": 9}}, LABELS
    )
    assert first == {"stage": "Item summaries", "time": "30.0 s", "memory": "1.5 GiB", "calls": "10", "cached": "2",
                     "read": "1,000", "written": "50"}  # fmt: skip
    assert (second["stage"], second["memory"], second["calls"]) == ("Scores, trained", "1 MiB, 2.0 GiB GPU", "6")
    assert (third["stage"], third["time"], third["calls"]) == ("Baselines", "0.0 s", "")
    assert total == {"stage": "Whole run", "time": "1 min 2 s", "memory": "1.5 GiB, 2.0 GiB GPU", "calls": "16",
                     "cached": "3", "read": "1,234", "written": "50"}  # fmt: skip
    assert cost_rows({}, LABELS) == []


def test_every_stage_has_a_name_and_its_place_in_the_table() -> None:
    names = [stage.name for stage in STAGES if stage.name != "evaluate"]
    shown = [row["stage"] for row in cost_rows({name: {} for name in reversed(names)}, LABELS)][:-1]
    assert len(shown) == len(set(shown)) == len(names)
    assert not set(shown) & set(names)
    assert shown[names.index("truncate")] == "Truncated user summaries"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min"), (61.6, "1 min 2 s"), (3600, "1 h"), (7500, "2 h 5 min")],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_unknown_models_look_unlike_each_other() -> None:
    found = looks(["trained", "ours", "theirs", "popularity"])
    assert [found[name].variable for name in found] == ["trained", "other1", "other2", "popularity"]
    assert len({str(look.dash) for look in found.values()}) == 4


def test_what_a_shared_prefix_saved_and_how_often_the_model_had_other_words() -> None:
    summary = {
        "tokens_flat": 1_000, "tokens_processed": 300, "tokens_least": 280, "images_shown": 40, "images_encoded": 8,
        "unshared_rows": 0, "answer_mass": 0.75, "rather_something_else": 3,
    }  # fmt: skip
    manifests = {"score": {"summary": summary}, "score-base": {"summary": {"answer_mass": 1.0}}}
    assert prefix_sharing_lines(manifests, LABELS) == [
        "Scores, trained: 300 tokens processed for prompts of 1,000 tokens (30%, and 28% would be the minimum); "
        "8 images encoded for 40 shown; "
        "25.0% of the probability falls outside the two answers, and for 3 candidates most of it does.",
        "Scores, base: 0.0% of the probability falls outside the two answers.",
    ]
    alone = {"tokens_flat": 10, "tokens_processed": 10, "tokens_least": 0, "unshared_rows": 2, "unshared_because": "so"}
    assert prefix_sharing_lines({"score": {"summary": alone}}, LABELS) == [
        "Scores, trained: 10 tokens processed for prompts of 10 tokens (100%); 2 prompts processed one by one, "
        "because so."
    ]
    assert prefix_sharing_lines({}, LABELS) == []


def test_who_answered_and_how_an_engine_compared_are_told() -> None:
    trial = {"prompts": 8, "difference": 4.5e-6, "allowed": 1e-3}
    engine = {"name": "vllm 0.23.0", "adapters": "applied by vLLM", "trial": trial}
    manifests = {
        "score": {"summary": {"engine": engine}}, "score-base": {"summary": {"computed": 3}},
        "users": {"summary": {"engine": {"name": "transformers", "chosen": "auto: no GPU is seen"}}},
    }  # fmt: skip
    told = engine_lines(manifests, LABELS)
    assert sorted(told) == [
        "Scores, trained: vllm 0.23.0, adapter applied by vLLM; 8 prompts of this run were answered by transformers "
        "too, before it was trusted: log-odds differ by 4.5e-06 at most, 0.001 are allowed.",
        "User summaries: transformers, auto: no GPU is seen.",
    ]
    [texts] = engine_lines({"score": {"summary": {"engine": engine, "answer_tokens": 900}}}, LABELS)
    assert "log-probabilities of a text's tokens differ by 4.5e-06 at most" in texts
