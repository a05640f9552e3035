"""The evaluate stage on a synthetic run whose truth is known."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from sklearn.metrics import log_loss, roc_auc_score

from msr_adapter import schema
from msr_adapter.config.schema import EvaluateConfig, NegativesConfig, ProtocolConfig
from msr_adapter.evaluate.baselines.simple import oracle_scores
from msr_adapter.evaluate.baselines.training_log import BaselineInputs
from msr_adapter.evaluate.candidates import HeldOut, read_held_out
from msr_adapter.evaluate.model_metrics import protocol_digest
from msr_adapter.evaluate.sampling import describe_sampling, sampling_line
from msr_adapter.evaluate.tables import per_user_schema
from msr_adapter.evaluate.text_tables import shown_metrics
from msr_adapter.files import bundled
from msr_adapter.metrics import evaluate_groups
from msr_adapter.progress import Reporter
from tests.support.judged_run import PROTOCOL, SIZE, Run, make_run, write_scores


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was judged once; tests only read it."""
    made = make_run(tmp_path_factory.mktemp("run"))
    made.evaluate()
    return made


def _test_rows(run: Run) -> pa.Table:
    table = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES)
    return table.filter(pc.greater_equal(table["example_id"], 5))


def _columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def test_the_bundled_protocol_says_the_defaults() -> None:
    settings = yaml.safe_load((bundled("eval") / "next-item.yaml").read_text(encoding="utf-8"))
    assert ProtocolConfig.model_validate(settings) == ProtocolConfig(name="next-item", primary="ndcg")
    assert ProtocolConfig(name="next-item").primary_metric == "ndcg@10"
    assert set(settings) == set(ProtocolConfig.model_fields) - {"candidates"}


def test_models_and_their_numbers(run: Run) -> None:
    metrics = run.metrics()
    assert list(metrics["models"]) == ["trained", "base", "popularity", "random", "oracle"]
    assert metrics["users"] == 40
    assert metrics["candidates"]["rows"] == 40 * SIZE
    scores = schema.read_table(run.trained / "scores.parquet", schema.SCORES)["logit"].to_numpy()
    auc = metrics["models"]["trained"]["metrics"]["auc"]
    assert auc["mean"] == pytest.approx(roc_auc_score(_test_rows(run)["label"].to_numpy(), scores), abs=1e-12)
    assert auc["low"] < auc["mean"] < auc["high"]
    assert metrics["models"]["trained"]["answer_mass"] == pytest.approx(0.999)
    assert "answer_mass" not in metrics["models"]["popularity"]


def test_a_base_model_that_gives_every_candidate_the_same_score_is_chance(run: Run) -> None:
    metrics = run.metrics()
    base = {name: value["mean"] for name, value in metrics["models"]["base"]["metrics"].items()}
    assert base == pytest.approx(metrics["chance"], abs=1e-12)
    assert metrics["models"]["base"]["tied_users"] == 1
    assert metrics["chance"]["hr@3"] == pytest.approx(3 / SIZE)


def test_share_of_the_oracles_lift(run: Run) -> None:
    metrics = run.metrics()
    assert metrics["primary"] == "ndcg@10"
    trained, oracle = (metrics["models"][name]["metrics"]["ndcg@10"]["mean"] for name in ("trained", "oracle"))
    chance = metrics["chance"]["ndcg@10"]
    assert metrics["oracle_lift_share"] == pytest.approx((trained - chance) / (oracle - chance))
    assert 0.5 < metrics["oracle_lift_share"] < 1


def test_the_oracle_is_joined_by_ids_not_by_position(run: Run) -> None:
    truth = schema.read_table(run.data / "truth.parquet", schema.TRUTH)
    known = dict(zip(zip(truth["example_id"].to_pylist(), truth["item_id"].to_pylist(), strict=True),
                     truth["score"].to_pylist(), strict=True))  # fmt: skip
    rows = _columns(_test_rows(run))
    scores = [known[example, item] for example, item in zip(rows["example_id"], rows["item_id"], strict=True)]
    judged = run.metrics()["models"]["oracle"]["metrics"]
    lists = np.reshape(scores, (-1, SIZE))
    probable = np.exp(lists) / np.exp(lists).sum(axis=1, keepdims=True)
    assert judged["auc"]["mean"] == pytest.approx(roc_auc_score(rows["label"], probable.ravel()), abs=1e-12)
    own = [roc_auc_score(labels, each) for labels, each in zip(rows["label"].reshape(-1, SIZE), lists, strict=True)]
    assert judged["gauc"]["mean"] == pytest.approx(np.mean(own), abs=1e-12)


def test_the_oracle_is_the_ceiling_of_the_pooled_auc_too(tmp_path: Path) -> None:
    """Users choose by the softmax of their preferences, whose level differs from user to user."""
    generator, users, size = np.random.default_rng(3), 400, 7
    odds = 1.5 * generator.standard_normal((users, size)) + 2 * generator.standard_normal((users, 1))
    labels = np.zeros((users, size), np.int8)
    labels[np.arange(users), (odds + generator.gumbel(size=odds.shape)).argmax(axis=1)] = 1
    ids = np.repeat(np.arange(users), size)
    names = [f"i{number}" for number in range(users * size)]
    columns = {"example_id": ids, "item_id": names, "label": labels.ravel()}
    owners = pa.array([f"u{number}" for number in range(users)])
    lists = HeldOut(
        np.arange(users), owners, np.arange(users + 1) * size, pa.table(columns, schema=schema.CANDIDATES), ""
    )
    truth = pa.table({"example_id": ids, "item_id": names, "score": odds.ravel()})
    schema.write_table(truth.cast(schema.TRUTH), schema.TRUTH, tmp_path / "truth.parquet")
    config = EvaluateConfig(protocol=PROTOCOL)
    scores = oracle_scores(BaselineInputs(lists, tmp_path, config, 0))
    assert scores is not None
    values = [evaluate_groups(each, labels.ravel(), lists.offsets, ("auc", "gauc", "ndcg"), (5,)).means()
              for each in (scores, odds.ravel())]  # fmt: skip
    assert values[0]["gauc"] == pytest.approx(values[1]["gauc"])
    assert values[0]["ndcg@5"] == pytest.approx(values[1]["ndcg@5"])
    assert values[0]["auc"] > values[1]["auc"] + 0.05


def test_popularity_ranks_by_the_items_counts(run: Run) -> None:
    rows = _columns(_test_rows(run))
    expected = roc_auc_score(rows["label"], rows["item_id"].astype(int))  # item 007 has 7 interactions
    assert run.metrics()["models"]["popularity"]["metrics"]["auc"]["mean"] == pytest.approx(expected, abs=1e-12)


def test_per_user_rows_agree_with_the_means(run: Run) -> None:
    metrics = run.metrics()
    names = [name for name in metrics["chance"] if name != "auc"]
    table = schema.read_table(run.root / "evaluate" / "per_user.parquet", per_user_schema(names))
    assert table.num_rows == 40 * 5
    for model, entry in metrics["models"].items():
        rows = table.filter(pc.equal(table["model"], model))
        assert rows["example_id"].to_pylist() == list(range(5, 45))
        for name in names:
            assert rows[name].to_numpy().mean() == pytest.approx(entry["metrics"][name]["mean"], abs=1e-12)
        assert rows["rank"].to_numpy() == pytest.approx(1 + rows["greater"].to_numpy() + rows["equal"].to_numpy() / 2)


def test_running_again_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    again = make_run(tmp_path)
    again.evaluate()
    for name in ("metrics.json", "per_user.parquet", "report.html"):
        assert (again.root / "evaluate" / name).read_bytes() == (run.root / "evaluate" / name).read_bytes()


def test_the_seed_moves_the_random_baseline_only(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first, second = run.evaluate()["metrics"], run.evaluate(seed=1)["metrics"]
    assert {name for name in first if first[name] != second[name]} == {"random"}


def test_calibration_and_what_is_shown(run: Run) -> None:
    metrics = run.metrics()
    scores = schema.read_table(run.trained / "scores.parquet", schema.SCORES)["score"].to_numpy()
    labels = _test_rows(run)["label"].to_numpy()
    assert list(metrics["calibration"]) == ["trained", "base"]
    trained, base = metrics["calibration"]["trained"], metrics["calibration"]["base"]
    assert trained["log_loss"] == pytest.approx(log_loss(labels, scores))
    assert base["bins"] == [{"low": 0.5, "high": 0.6, "count": 40 * SIZE, "mean_score": 0.5, "rate": 1 / SIZE}]
    assert base["ece"] == pytest.approx(0.5 - 1 / SIZE)
    assert list(metrics["beyond"]) == list(metrics["models"])
    shown = metrics["beyond"]
    assert shown["popularity"]["popularity@3"] > shown["random"]["popularity@3"]
    assert shown["popularity"]["novelty@3"] < shown["random"]["novelty@3"]
    assert shown["popularity"]["coverage@3"] < shown["random"]["coverage@3"] <= 1
    # all candidates are tied: every item is shown as often as it is a candidate, on average
    items = _test_rows(run)["item_id"].to_numpy().astype(int)
    assert shown["base"]["popularity@10"] == pytest.approx(items.reshape(40, SIZE).mean(axis=1).mean())


def test_metrics_that_are_not_asked_for_are_absent(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.evaluate(ProtocolConfig(name="few", metrics=("hr", "brier"), k=(1,)))
    metrics = run.metrics()
    assert set(metrics["calibration"]["trained"]) == {"brier", "bins"}
    assert metrics["beyond"] == {}
    assert list(metrics["chance"]) == ["hr@1"]


def test_the_smallest_difference_shrinks_with_the_square_root_of_the_users(tmp_path: Path) -> None:
    found = []
    for users in (40, 360):
        run = make_run(tmp_path / str(users), users=users)
        run.evaluate()
        found.append(run.metrics()["smallest_difference"]["random"])
    assert 0 < found[1] < found[0]
    assert found[0] / found[1] == pytest.approx(3, rel=0.35)


def test_candidate_scores_make_every_metric_again(run: Run) -> None:
    table = pq.read_table(run.root / "evaluate" / "candidate_scores.parquet")
    assert table.select(schema.CANDIDATES.names).equals(_test_rows(run))
    for model, entry in run.metrics()["models"].items():
        again = evaluate_groups(
            table[f"score:{model}"].to_numpy(), table["label"].to_numpy(), np.arange(41) * SIZE
        ).means()
        assert {name: value["mean"] for name, value in entry["metrics"].items()} == {
            name: again[name] for name in entry["metrics"]
        }


def test_a_user_with_two_targets(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    table = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES)
    labels = table["label"].to_numpy().copy()
    labels[5 * SIZE : 6 * SIZE] = [1, 1, 0, 0, 0, 0, 1]
    table = table.set_column(2, schema.CANDIDATES.field("label"), pa.array(labels))
    schema.write_table(table, schema.CANDIDATES, run.data / "candidates.parquet")
    run.evaluate()
    assert run.metrics()["candidates"]["targets"] == 42
    assert run.metrics()["chance"]["recall@3"] == pytest.approx(3 / SIZE)
    assert run.metrics()["chance"]["hr@3"] > 3 / SIZE
    assert "recall@3" in shown_metrics(run.metrics())


def test_without_truth_and_without_base(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.data / "truth.parquet").unlink()
    result = run.evaluate(baselines=("popularity",), score_dirs={"trained": run.trained})
    assert list(result["metrics"]) == ["trained", "popularity"]
    assert result["oracle_lift_share"] is None


def test_a_protocol_with_one_metric_and_ragged_candidates(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    keep = pa.array([label == 1 or row % 5 > 0 for row, label in enumerate(_all_labels(run))])
    table = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES).filter(keep)
    schema.write_table(table, schema.CANDIDATES, run.data / "candidates.parquet")
    rows = _columns(_test_rows(run))
    for folder in (run.trained, run.base):
        write_scores(folder, rows, rows["label"] * 2.0)
    protocol = ProtocolConfig(name="one", metrics=("ndcg",), k=(2,))
    assert protocol.primary_metric == "ndcg@2"
    assert run.evaluate(protocol)["metrics"]["trained"] == {"ndcg@2": 1.0}
    sizes = run.metrics()["candidates"]
    assert sizes["smallest"] < sizes["largest"]
    assert "NDCG@2 1.000" in run.report()


def _all_labels(run: Run) -> list[int]:
    labels: list[int] = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES)["label"].to_pylist()
    return labels


def test_popularity_above_the_trained_model_is_a_warning(tmp_path: Path) -> None:
    run = make_run(tmp_path, popularity_wins=True)
    findings = {finding["severity"]: finding["text"] for finding in run.evaluate()["findings"]}
    assert findings["warning"].startswith("Popularity alone gives NDCG@10")
    assert "popularity" in run.metrics()["differences"]
    assert run.metrics()["differences"]["popularity"]["high"] < 0


def test_low_answer_mass_of_the_trained_model_is_a_warning(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rows = _columns(_test_rows(run))
    write_scores(run.trained, rows, rows["label"] * 1.0, mass=0.2)
    assert any("only 20.0% of the probability" in finding["text"] for finding in run.evaluate()["findings"])


def test_the_console_shows_every_model_and_the_findings(tmp_path: Path) -> None:
    written = io.StringIO()
    make_run(tmp_path).evaluate(reporter=Reporter(console=Console(width=140, file=written)))
    text = written.getvalue()
    for word in (
        "trained",
        "popularity",
        "oracle",
        "chance",
        "HR@5",
        "NDCG@10",
        "Only 40 test users",
        "guessing for 71%",
        "Sampled: 6 negatives per user, uniform over the items",
        "the catalogue has 40 items",
    ):
        assert word in text
    assert "Recall@5" not in text


def test_context_with_a_name_only_is_enough(tmp_path: Path) -> None:
    run = make_run(tmp_path, images=False)
    (run.data / "audit.json").unlink()
    bare = replace(
        run.context(), config={}, versions={}, manifests={}, training_log=None, items_dir=None, users_dir=None
    )
    run.evaluate(context=bare)
    assert "The data folder has no audit." in run.report()
    assert "Training loss" not in run.report()


def test_the_digest_is_of_what_can_change_a_number() -> None:
    settings = PROTOCOL.model_dump(mode="json")
    assert protocol_digest(settings | {"name": "other"}) == protocol_digest(settings)
    assert protocol_digest(settings | {"k": [1]}) != protocol_digest(settings)


def test_a_protocol_without_a_metric_that_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="no metric that ranks"):
        ProtocolConfig(name="x", metrics=("brier",))


def test_protocol_is_recorded_with_its_digest(run: Run) -> None:
    metrics = run.metrics()
    assert metrics["protocol"] == json.loads(PROTOCOL.model_dump_json()) | {"primary": "ndcg@10"}
    assert len(metrics["protocol_digest"]) == len(metrics["candidates"]["digest"]) == 64


def test_the_primary_metric_is_one_that_is_judged() -> None:
    with pytest.raises(ValueError, match=r"primary: hr@4 is not among .* k, which are auc, hr@3, hr@5; name one"):
        ProtocolConfig(name="x", metrics=("auc", "hr"), k=(3, 5), primary="hr@4")
    assert ProtocolConfig(name="x", metrics=("auc", "hr"), k=(3, 5), primary="hr@5").primary_metric == "hr@5"
    with pytest.raises(ValueError, match="primary: ndcg is not among"):
        ProtocolConfig(name="x", metrics=("auc", "hr"), primary="ndcg")
    assert ProtocolConfig(name="x", metrics=("auc", "ndcg"), k=(3, 5)).primary_metric == "ndcg@5"
    assert ProtocolConfig(name="x", k=(20, 10, 50), primary="mrr").primary_metric == "mrr@10"
    assert ProtocolConfig(name="x", metrics=("auc", "gauc", "hr"), k=(3,)).primary_metric == "gauc"
    assert ProtocolConfig(name="x", metrics=("recall", "mrr"), k=(3,)).primary_metric == "recall@3"


def test_differences_are_adjusted_for_the_models(run: Run) -> None:
    differences = run.metrics()["differences"]
    assert list(differences) == ["base", "popularity", "random", "oracle"]
    for gap in differences.values():
        assert gap["low"] < gap["mean"] < gap["high"]
        assert 0 < gap["p"] <= gap["p_adjusted"] <= 1
    assert differences["base"]["p_adjusted"] < 0.05 < differences["oracle"]["p_adjusted"]
    assert list(run.metrics()["smallest_difference"]) == list(differences)


@pytest.mark.parametrize(
    ("negatives", "sampled", "words"),
    [
        ({"kind": "uniform", "count": 6}, True, "uniform over the items"),
        ({"kind": "popularity", "alpha": 0.75}, True, "drawn by popularity to the power of 0.75"),
        ({"kind": "mixture", "count": 6, "mixture": {"uniform": 1, "same_category": 1}}, True,
         "3 uniform over the items, 3 of the target's category"),
        ({"kind": "all"}, False, "every item that the user never interacted with"),
    ],
)  # fmt: skip
def test_the_metrics_say_what_they_are_sampled_from(
    run: Run, negatives: dict[str, object], sampled: bool, words: str
) -> None:
    protocol = PROTOCOL.model_copy(update={"negatives": NegativesConfig.model_validate(negatives)})
    sampling = describe_sampling(protocol, read_held_out(run.data), 40)
    assert (sampling["sampled"], sampling["negatives"], sampling["items"]) == (sampled, SIZE - 1, 40)
    assert sampling["distribution"] == words
    assert ("Krichene" in sampling["caution"]) == sampled
    said = "Sampled: 6 negatives per user" if sampled else "Ranked against the whole catalogue: 6 negatives per user"
    assert sampling_line(sampling).startswith(f"{said}, {words}")


def test_given_candidates_are_of_an_unknown_distribution(run: Run) -> None:
    protocol = PROTOCOL.model_copy(update={"candidates": Path("lists.parquet")})
    sampling = describe_sampling(protocol, read_held_out(run.data), 40)
    assert (sampling["sampled"], sampling["distribution"], sampling["kinds"]) == (True, "those of the given file", {})


def test_the_report_leads_with_the_primary_metric_and_gauc(run: Run) -> None:
    page, metrics = run.report(), run.metrics()
    assert list(metrics["sampling"]) == ["sampled", "negatives", "kinds", "distribution", "items", "caution"]
    assert "Sampled: 6 negatives per user" in page
    ours = {name: metrics["models"]["trained"]["metrics"][name]["mean"] for name in ("ndcg@10", "gauc")}
    assert f"reaches NDCG@10 {ours['ndcg@10']:.3f} and GAUC {ours['gauc']:.3f} over 40 held-out users" in page
    assert "pooled over users: it also asks whether scores mean the same" in page
    assert shown_metrics(metrics)[:3] == ["ndcg@10", "gauc", "auc"]
