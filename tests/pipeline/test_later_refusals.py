"""`check` finds what later stages refuse: every function that refuses is reached by it, or says why it cannot be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from msr_adapter import schema
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.llamafactory.family_recognition import takes_images
from msr_adapter.pipeline import check, check_made, plan, run
from msr_adapter.pipeline.later_refusals import check_finished
from msr_adapter.pipeline.run_folder import RunFolder
from tests.support.call_graph import Place, reached, refusing
from tests.support.summaries import Lines

PACKAGES = ("train", "summarize", "score", "evaluate", "report", "llamafactory", "distributed", "backends",
            "generation", "candidate_rows", "prompts", "pipeline")  # fmt: skip
"""All that refuses from the summaries on. The data stage is the first, and what its rows alone tell, it tells."""

ROWS = "the written rows tell; `check --deep` asks them"
SAME = "asked again where it counts; check says the same by other means: "
STATE = "about the state of a run, by the command that meets it"
CANNOT_BE_KNOWN = {
    "train.preflight": {
        "preflight": f"{SAME}takes_images", "_length_problems": ROWS, "_image_problems": ROWS,
        "_read_back_problems": ROWS, "_disk_problems": f"{SAME}_check_disk",
    },
    "train.truncation": {
        "_problem": "the summaries tell", "_SplitTruncation._measure_all": "images that were damaged meanwhile",
    },
    "train.working_dir": {"WorkingDir.require_unaltered": STATE},
    "train.dataset": {"build_dataset": "no examples: the data stage refuses that"},
    "score.weighing_users": {"write_weighing_candidates": f"{SAME}too_few"},
    "evaluate.hybrid.fitting": {"read_hybrid": STATE},
    "score.scoring": {"score": "no candidates: the data stage refuses that"},
    "report.page": {"_render": "what was judged tells; template_faults finds the rest"},
    "llamafactory.training_yaml": {
        "by_hand_problems": "of train --dry-run, before anything runs", "training_config": f"{SAME}check_paths",
    },
    "evaluate.results": {"FinishedRun.scores": STATE, "_problem": STATE},
    "evaluate.comparison": {"chosen_metrics": STATE, "require_comparable": STATE},
    "pipeline.mining_stage": {"write_candidates": "what is left for each user, which retrieving tells"},
    "pipeline.checks": {"look_deep": "check --deep itself"},
    "pipeline.planning": {"stale_training": STATE},
    "pipeline.run_folder": {"RunFolder.locked": STATE},
    "pipeline.runner": {"_require_base_model": STATE},
    "pipeline.stored_images": {"require_unaltered_images": STATE},
}  # fmt: skip
"""Module -> function that refuses and that check does not reach -> why."""

ROOTS = (Place("pipeline.checks", "check"), Place("pipeline.checks", "check_made"))


def test_check_reaches_every_refusal() -> None:
    found = reached(*ROOTS)
    beyond = refusing(PACKAGES) - found
    allowed = {Place(module, name) for module, names in CANNOT_BE_KNOWN.items() for name in names}
    assert sorted(beyond - allowed) == [], "let `check` find it, or say here why it cannot be known before"
    assert sorted(allowed - beyond) == [], "check reaches these now"
    reasons = [why for names in CANNOT_BE_KNOWN.values() for why in names.values() if why.startswith(SAME)]
    reached_names = {place.name for place in found}
    assert all(why.removeprefix(SAME) in reached_names for why in reasons)


def test_the_walk_sees_what_a_function_reaches() -> None:
    names = {place.name for place in reached(*ROOTS)}
    assert {"check_stages", "share_gpus", "find_place", "require_fitting_adapters", "_check_parts"} <= names
    assert "load_model" not in names


PIPELINE = """\
name: p
data: {source: {kind: synthetic, users: 20, items: 40}}
split: {fractions: [0.5, 0.1, 0.4]}
summarize:
  items: {model: {path: nobody, backend: scripted}}
  users: {model: {path: nobody, backend: scripted}}
train: {model: {path: tiny}}
evaluate: {protocol: next-item, baselines: [popularity]}
"""


def load(folder: Path, *sets: str) -> LoadedPipeline:
    (folder / "p.yaml").write_text(PIPELINE)
    return load_pipeline(str(folder / "p.yaml"), sets, folder / "run")


def text_model(folder: Path) -> Path:
    """Write the files of a language model of no tested family, as far as a check reads them."""
    shutil.copytree(Path(__file__).parents[2] / "msr_adapter" / "demo" / "tiny", made := folder / "text-model")
    for name in ("preprocessor_config.json", "processor_config.json"):
        (made / name).unlink(missing_ok=True)
    config = json.loads((made / "config.json").read_text())
    config = {key: value for key, value in config.items() if "vision" not in key and "image" not in key}
    text = config.pop("text_config", {})
    (made / "config.json").write_text(
        json.dumps({**text, **config, "model_type": "of_ours", "architectures": ["Ours"]})
    )
    return made


def test_a_text_model_with_images_is_refused_before_any_summary(tmp_path: Path) -> None:
    model = text_model(tmp_path)
    loaded = load(tmp_path, f"train.model.path={model}", "train.model.template=llama3")
    [problem] = check(loaded)
    assert (problem.field, problem.allowed) == ("train.images", "false")
    assert "sees no images" in problem.found
    assert check(load(tmp_path, f"train.model.path={model}", "train.model.template=llama3", "train.images=false")) == []


def test_a_template_without_images_blinds_any_model() -> None:
    assert takes_images(ModelConfig(path="no/such", template="llama3")) is False
    assert takes_images(ModelConfig(path="no/such", template="qwen2_vl")) is None  # its files may say otherwise
    assert takes_images(ModelConfig(path="tiny")) is True


CASES: dict[str, tuple[Callable[[Path], list[str]], str, str]] = {
    "template": (lambda f: [f"train.model.path={text_model(f)}", "train.model.template=qwen9", "train.images=false"],
                 "train.model.template", "unknown template 'qwen9'"),
    "thinking": (lambda f: [f"train.model.path={text_model(f)}", "train.model.template=glm4_moe", "train.images=false"],
                 "train.model.template", "reasons before every answer"),
    "override": (lambda f: ["train.overrides={lerning_rate: 1}"], "train.overrides.lerning_rate", "no such argument"),
    "answers": (lambda f: ['train.answers={"yes": ["Yes"], "no": ["Yes!"]}'], "train.answers", "same token"),
    "workers": (lambda f: ["execution={workers: 2, gpus_per_worker: 1}", "summarize.items.model={path: tiny}"],
                "execution.workers", "but this machine has"),
    "parts": (lambda f: ["execution={workers: 2, gpus_per_worker: 1.5}", "summarize.items.model={path: tiny}"],
              "execution.gpus_per_worker", "1.5"),
    "cache": (lambda f: [f"cache={f}"], "cache", "a folder"),
    "no cache": (lambda f: [f"cache={f / 'p.yaml'}"], "cache", "no completion cache"),
    "report": (lambda f: [f"templates={own_report(f, '{% if %}')}"], "", "Expected an expression"),
    "included": (lambda f: [f"templates={own_report(f, '{% include gone %}'.replace('gone', repr('gone.j2')))}"],
                 "gone.j2", "no such template"),
    "filter": (lambda f: [f"templates={own_report(f, '{{ 1 | shout }}')}"], "", "No filter named 'shout'"),
    "slices": (lambda f: [f"evaluate.tables.items={twice(f)}"], "item_id", "1 id has several rows"),
    "lists": (lambda f: [f"evaluate.protocol.candidates={lists(f)}"], "label", "no such column"),
    "scores": (lambda f: ["evaluate.protocol.negatives={kind: hard, count: 3, scores: " + str(twice(f)) + "}"],
               "score", "no column score"),
}  # fmt: skip


def own_report(folder: Path, text: str) -> Path:
    (made := folder / "words").mkdir()
    (made / "report.html.j2").write_text(text)
    return made


def lists(folder: Path) -> Path:
    (folder / "lists.csv").write_text("user_id,item_id\nu,a\n")
    return folder / "lists.csv"


def twice(folder: Path) -> Path:
    (folder / "twice.csv").write_text("item_id,kind\na,1\na,2\n")
    return folder / "twice.csv"


@pytest.mark.parametrize("case", CASES)
def test_check_refuses_what_a_later_stage_would(tmp_path: Path, case: str) -> None:
    sets, field, said = CASES[case]
    found = check(load(tmp_path, *sets(tmp_path)))
    assert [(problem.field, said in str(problem)) for problem in found] == [(field, True)], found


@pytest.mark.parametrize(
    ("variables", "sets", "field"),
    [
        ({"IMAGE_PLACEHOLDER": "<img>"}, [], "IMAGE_PLACEHOLDER"),
        ({"NODE_RANK": "7"}, ["train.launch={nodes: 2, address: first}"], "NODE_RANK"),
        ({"SLURM_NODEID": "x"}, ["train.launch={nodes: 2, address: first}"], "SLURM_NODEID"),
    ],
)
def test_check_looks_at_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sets: list[str], field: str
) -> None:
    assert check(load(tmp_path, *sets)) == []  # also on a login node, which is no machine of the training
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert [problem.field for problem in check(load(tmp_path, *sets))] == [field]


def test_more_processes_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.distributed.devices.visible_gpus", lambda _: ["0", "1"])
    assert check(load(tmp_path, "train.launch.processes=2")) == []
    assert [one.field for one in check(load(tmp_path, "train.launch.processes=3"))] == ["train.launch.processes"]


def test_an_engine_that_is_not_installed_is_told_of_for_every_model_that_asks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = load(tmp_path, "summarize.items.model.backend=vllm", "train.model.backend=vllm")
    monkeypatch.setattr("msr_adapter.backends.vllm.installed.installed_version", lambda: "")
    problems = check(asked)
    assert [one.field for one in problems] == ["summarize.items.model.backend", "train.model.backend"]
    assert "'msr-adapter[vllm]'" in problems[0].next_step
    monkeypatch.setattr("msr_adapter.backends.vllm.installed.installed_version", lambda: "0.23.0")
    assert check(asked) == []


def test_a_path_that_the_trainer_would_fill_in_is_refused(tmp_path: Path) -> None:
    (folder := tmp_path / "${HOME}").mkdir()
    [problem] = [one for one in check(load(folder)) if one.field == "run_dir"]
    assert "${, which LLaMA-Factory would interpolate" in problem.found


def test_a_disk_that_is_too_small_for_the_training_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        "msr_adapter.pipeline.later_refusals.shutil.disk_usage", lambda _: usage._replace(free=2**30 + 1)
    )
    assert check(load(tmp_path)) == []
    monkeypatch.setattr("msr_adapter.pipeline.later_refusals.estimate", lambda *_: Huge())
    [problem] = check(load(tmp_path))
    assert "take about 99.0 GB" in problem.allowed


class Huge:
    disk = 99 * 10**9


# What the first stages show.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    run(load(folder), ("lengths",), reporter=Lines())
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path


def made(loaded: LoadedPipeline) -> list[Problem]:
    return check_made(loaded, plan(loaded))


def test_rows_that_are_too_long_whatever_comes_are_told_before_the_summaries(folder: Path) -> None:
    wanted = load(folder, "train.cutoff_len=16")
    assert check(wanted) == made(wanted) == []  # the estimate is of another length yet
    lines = Lines()
    with pytest.raises(UserError, match="too few for more than half of the rows"):
        run(wanted, ("evaluate",), reporter=lines)
    assert not (folder / "run" / "items").exists()
    assert "items       running" not in lines.text
    [problem] = made(wanted)
    assert (problem.field, problem.where.rpartition("/")[2]) == ("train.cutoff_len", "--set")
    run(wanted, ("users",), reporter=Lines())  # which trains nothing
    served = load(folder, "train.cutoff_len=16", "evaluate.scorer={path: ours, backend: scripted}")
    assert made(served) == []


def test_a_validation_split_without_anybody_is_told_before_the_summaries(folder: Path) -> None:
    wanted = load(folder, "train.keep=best")
    stage = RunFolder(folder / "run")
    assert made(wanted) == []
    manifest = json.loads((folder / "run" / "data" / "manifest.json").read_text())
    manifest["summary"]["splits"]["validation"]["examples"] = 0
    manifest.pop("seal")
    (folder / "run" / "data" / "manifest.json").write_text(json.dumps(manifest))
    [problem] = check_finished(wanted, stage, ("data",))
    assert problem.field == "train.keep"
    assert check_finished(wanted, stage, ()) == []


def test_images_that_the_data_has_are_shown_to_no_model_that_sees_none(folder: Path, tmp_path: Path) -> None:
    model = text_model(tmp_path)
    wanted = load(folder, f"train.model.path={model}", "train.model.template=llama3")
    [problem] = check_finished(wanted, RunFolder(folder / "run"), ("data",))
    assert problem.field == "train.images"
    items = folder / "run" / "data" / "items.parquet"
    table = schema.read_table(items, schema.ITEMS)
    for name in ("image", "image_digest"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, schema.ITEMS.field(name), pa.nulls(len(table), pa.string()))
    schema.write_table(table, schema.ITEMS, items)
    assert check_finished(wanted, RunFolder(folder / "run"), ("data",)) == []
