"""The bundled protocols: what they say, and that each one builds lists and is judged as it says."""

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import yaml
from typer.testing import CliRunner

from msr_adapter import schema
from msr_adapter.cli import app
from msr_adapter.config.bundled import bundled_files
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import ProtocolConfig
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.evaluate.model_metrics import judge, protocol_digest
from msr_adapter.files import bundled
from msr_adapter.pipeline import run
from msr_adapter.progress import Reporter
from tests.support.judged_run import make_run
from tests.support.scripted_pipeline import SCRIPTED

NAMES = [file.name for file in bundled_files("eval")]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    (tmp_path / "scripted.yaml").write_text(SCRIPTED)
    return tmp_path / "scripted.yaml"


def built(pipeline: Path, name: str) -> tuple[ProtocolConfig, Path]:
    sets = (f"evaluate.protocol={name}", "data.source.items=200", "evaluate.protocol.negatives.pool=150")
    loaded = load_pipeline(str(pipeline), sets, pipeline.parent / name)
    run(loaded, ("data",), reporter=Reporter(quiet=True))
    return loaded.pipeline.evaluate.protocol, loaded.run_dir / "data"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evaluate.protocol.k=[]", "evaluate.protocol.k: no cut-off; at least one is needed"),
        ("evaluate.protocol.metrics=[log_loss]", "no metric that ranks"),
        ("evaluate.protocol=nextitem", "Did you mean `next-item`?"),
        ("evaluate.baselines=[SASRec]", "Did you mean `sasrec`?"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_runs(pipeline: Path, setting: str, message: str) -> None:
    done = CliRunner().invoke(app, ["check", str(pipeline), "--set", setting])
    assert done.exit_code == 2
    assert message in done.stderr


def test_there_are_five_and_their_digests_differ(pipeline: Path) -> None:
    assert set(NAMES) >= {"next-item", "paper", "released-code", "popularity-matched", "full-ranking"}
    protocols = [
        load_pipeline(str(pipeline), (f"evaluate.protocol={name}",)).pipeline.evaluate.protocol for name in NAMES
    ]
    assert len({protocol_digest(protocol.model_dump(mode="json")) for protocol in protocols}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_says_its_name_its_use_and_what_it_depends_on(name: str) -> None:
    text = (bundled("eval") / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}: ")
    assert f"evaluate: {{protocol: {name}}}" in text
    settings = yaml.safe_load(text)
    assert settings["name"] == name
    assert set(settings) >= {"name", "target", "negatives", "metrics", "k", "ties", "confidence"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "impressions"])  # which the shop does not log
def test_each_builds_its_lists_and_is_judged(name: str, pipeline: Path) -> None:
    protocol, data = built(pipeline, name)
    held_out = read_held_out(data)
    result = judge(protocol, held_out, np.random.default_rng(0).random(held_out.table.num_rows)).summary
    asked = {metric for metric in protocol.metrics if metric in protocol.ranking}
    assert {metric.partition("@")[0] for metric in result} == asked
    sizes = set(np.diff(held_out.offsets).tolist())
    if protocol.negatives.kind != "all":
        assert sizes == {protocol.negatives.count + 1}
        return
    log = schema.read_table(data / "interactions.parquet", schema.INTERACTIONS)
    catalogue = len(schema.read_listed(data / "items.parquet"))
    for user, size in zip(held_out.user_ids.to_pylist(), np.diff(held_out.offsets), strict=True):
        seen = pc.sum(pc.equal(log["user_id"], user)).as_py()
        assert size == catalogue - seen + 1


def test_the_paper_protocol_has_the_papers_three_numbers(pipeline: Path) -> None:
    protocol, data = built(pipeline, "paper")
    held_out = read_held_out(data)
    scores = np.zeros(held_out.table.num_rows)
    means = {metric: value["mean"] for metric, value in judge(protocol, held_out, scores).summary.items()}
    assert means == pytest.approx({"auc": 0.5, "hr@5": 5 / 21, "mrr@5": sum(1 / k for k in range(1, 6)) / 21})


def test_the_released_target_is_flagged(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    findings = made.evaluate(ProtocolConfig(name="p", target="most-popular-last", slices=()))["findings"]
    assert [one["severity"] for one in findings if "6 most popular items" in one["text"]] == ["warning"]
    made.evaluate(ProtocolConfig(name="p", slices=()))
    assert not [one for one in made.metrics()["findings"] if "6 most popular items" in one["text"]]


def test_popularity_is_worth_nothing_against_negatives_as_popular(tmp_path: Path) -> None:
    """Popularity alone, on a log in which users choose by popularity only."""
    found = {}
    for name in ("next-item", "popularity-matched"):
        pipeline = tmp_path / "popular.yaml"
        pipeline.write_text(
            SCRIPTED.replace("{kind: synthetic, users: 12, items: 60}", "{kind: table, interactions: log.csv}")
        )
        write_popular_log(tmp_path / "log.csv")
        sets = (
            f"evaluate.protocol={name}",
            "evaluate.protocol.negatives.pool=12",
            "evaluate.protocol.negatives.count=5",
        )
        loaded = load_pipeline(str(pipeline), sets, tmp_path / name)
        run(loaded, ("data",), reporter=Reporter(quiet=True))
        held_out = read_held_out(loaded.run_dir / "data")
        items = schema.read_table(loaded.run_dir / "data" / "items.parquet", schema.ITEMS)
        popularity = dict(zip(items["item_id"].to_pylist(), items["popularity"].to_pylist(), strict=True))
        scores = np.array([popularity[item] for item in held_out.items.to_pylist()], dtype=float)
        found[name] = judge(loaded.pipeline.evaluate.protocol, held_out, scores).summary["auc"]["mean"]
    assert found["next-item"] > 0.75
    assert abs(found["popularity-matched"] - 0.5) < 0.1


def write_popular_log(path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, 121) ** 1.2
    rows = ["user,item,timestamp"]
    for user in range(400):
        items = rng.choice(120, 6, replace=False, p=weights / weights.sum())
        rows += [f"u{user},i{item:03},{1_700_000_000 + 10 * user + step}" for step, item in enumerate(items)]
    path.write_text("\n".join(rows))


def test_check_says_how_often_the_model_is_asked(pipeline: Path) -> None:
    def checked(*more: str) -> list[str]:
        arguments = ["check", str(pipeline), "--run-dir", str(pipeline.parent / "run"), "--json", *more]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return [note for note in json.loads(done.stdout)["notes"] if not note.startswith("time: ")]

    full = ("--set", "evaluate.protocol=full-ranking")
    [note] = checked(*full)
    assert note.endswith("the model will be asked once per test user and item; `msr build-data` counts them")
    loaded = load_pipeline(str(pipeline), full[1:], pipeline.parent / "run")
    run(loaded, ("data",), reporter=Reporter(quiet=True))
    rows = read_held_out(loaded.run_dir / "data").table.num_rows
    [note] = checked(*full)
    assert f"asked {rows:,} times (1 scored)" in note
    [note] = checked(*full, "--set", "evaluate.baselines=[base]")
    assert f"asked {2 * rows:,} times (2 scored)" in note
    assert checked() == []
