"""Loading pipelines: what wins, where relative paths start, what YAML means."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.config.bundled import bundled_files
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import (
    MicroLensSourceConfig,
    NegativesConfig,
    ProtocolConfig,
    SyntheticSourceConfig,
    TableSourceConfig,
)
from msr_adapter.config.yaml_tree import YamlSource, parse
from msr_adapter.errors import Problem, UserError
from tests.support.paths import ROOT
from tests.support.pipelines import MINIMAL, write

SEEN = NegativesConfig(exclude="seen")
"""What `exclude: null` is settled to."""


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_bundled_pipeline_loads() -> None:
    names = [file.name for file in bundled_files("pipelines")]
    assert "microlens-50k" in names
    for name in names:
        assert load_pipeline(name).pipeline.name == name.rpartition("/")[2]


def test_every_bundled_protocol_loads_in_a_pipeline() -> None:
    names = [file.name for file in bundled_files("eval")]
    assert "next-item" in names
    write("a.yaml", MINIMAL)
    for name in names:
        assert load_pipeline("a.yaml", [f"evaluate.protocol={name}"]).pipeline.evaluate.protocol.name == name


def test_the_examples_in_the_readme_and_in_a_pipelines_header_load() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    own = readme.split("```yaml\n")[1].split("```")[0]
    assert load_pipeline(write("own.yaml", own)).pipeline.train.epochs == 3
    header = next(file for file in bundled_files("pipelines") if file.name == "microlens-50k").path.read_text()
    variant = [
        line.removeprefix("#   ") for line in header.split("#   extends")[1].splitlines() if line.startswith("# ")
    ]
    loaded = load_pipeline(write("variant.yaml", "\n".join(["extends: microlens-50k", *variant]))).pipeline
    assert {loaded.train.model, loaded.summarize.items.model, loaded.summarize.users.model} == {loaded.train.model}
    assert (loaded.train.model.default_system, loaded.train.max_steps, loaded.train.method) == (None, None, "lora")


def test_every_bundled_file_says_what_it_is() -> None:
    for kind in ("pipelines", "eval", "templates"):
        for file in bundled_files(kind):
            assert len(file.description) > 20, file.path


def test_the_minimal_pipeline_gets_defaults_and_the_name_of_its_file(tmp_path: Path) -> None:
    loaded = load_pipeline(write("sub/first.yaml", MINIMAL))
    assert loaded.pipeline.name == "first"
    assert loaded.run_dir == tmp_path / "runs" / "first"
    assert loaded.origin == tmp_path / "sub" / "first.yaml"
    assert loaded.pipeline.train.learning_rate == 1e-4
    assert loaded.pipeline.evaluate.protocol == ProtocolConfig(name="next-item", primary="ndcg", negatives=SEEN)


def test_the_resolved_config_is_json_and_loads_to_the_same_pipeline() -> None:
    loaded = load_pipeline(write("first.yaml", MINIMAL), ["split.fractions=[0.5, 0.25, 0.25]"])
    again = load_pipeline(write("resolved.json", json.dumps(loaded.resolved)))
    assert again.pipeline == loaded.pipeline
    assert again.resolved == loaded.resolved


def test_run_dir_the_option_wins_over_the_file(tmp_path: Path) -> None:
    write("sub/a.yaml", MINIMAL + "run_dir: out\n")
    assert load_pipeline("sub/a.yaml").run_dir == tmp_path / "sub" / "out"
    assert load_pipeline("sub/a.yaml", ["run_dir=here"]).run_dir == tmp_path / "here"
    assert load_pipeline("sub/a.yaml", run_dir=Path("there")).run_dir == tmp_path / "there"


def test_sets_win_over_the_file_which_wins_over_its_parents_the_later_parent_first() -> None:
    write("base.yaml", MINIMAL + "seed: 1\nsplit: {max_history: 1, min_history: 1}\n")
    write("more.yaml", "seed: 2\nsplit: {max_history: 2}\n")
    write("child.yaml", "extends: [base.yaml, more.yaml]\nsplit:\n  train_targets: 3\n")
    loaded = load_pipeline("child.yaml", ["split.train_targets=4", "train.lora.rank=2"]).pipeline
    assert (loaded.name, loaded.seed) == ("child", 2)
    split = loaded.split
    assert (split.max_history, split.min_history, split.train_targets) == (2, 1, 4)
    assert (loaded.train.lora.rank, loaded.train.lora.dropout) == (2, 0.0)


def test_lists_replace_they_do_not_merge() -> None:
    write("a.yaml", MINIMAL.replace("protocol: next-item", "protocol: next-item\n  baselines: [random, base]"))
    write("b.yaml", "extends: a.yaml\nevaluate: {baselines: [popularity]}\n")
    assert load_pipeline("b.yaml").pipeline.evaluate.baselines == ("popularity",)
    assert load_pipeline("b.yaml", ["evaluate.baselines=[]"]).pipeline.evaluate.baselines == ()


def test_a_source_of_another_kind_replaces_the_whole_source(tmp_path: Path) -> None:
    write("a.yaml", MINIMAL.replace("{kind: synthetic}", "{kind: synthetic, users: 40, noise: 0}"))
    write("b.yaml", "extends: a.yaml\ndata: {source: {kind: table, interactions: log.csv}}\n")
    assert load_pipeline("b.yaml").pipeline.data.source == TableSourceConfig(
        kind="table", interactions=tmp_path / "log.csv"
    )
    sets = ["data.source.interactions=x.csv", "data.source.kind=table"]
    assert load_pipeline("a.yaml", sets).pipeline.data.source == TableSourceConfig(
        kind="table", interactions=tmp_path / "x.csv"
    )
    assert load_pipeline("a.yaml", ["data.source.users=50"]).pipeline.data.source == SyntheticSourceConfig(
        kind="synthetic", users=50, noise=0
    )


def test_a_split_of_another_kind_keeps_the_other_keys() -> None:
    write("a.yaml", MINIMAL + "split: {max_history: 4}\n")
    assert load_pipeline("a.yaml", ["split.kind=leave-last-out"]).pipeline.split.max_history == 4


def test_relative_paths_start_from_the_yaml_that_names_them(tmp_path: Path) -> None:
    source = "{kind: microlens, pairs: logs/pairs.tsv, titles: /abs/titles.csv}"
    Path("base/texts").mkdir(parents=True)
    text = MINIMAL.replace("{kind: synthetic}", f"{source}\n  images: {{folder: ../images}}")
    write("base/a.yaml", text + "templates: texts\n")
    write("b/c.yaml", "extends: ../base/a.yaml\ntrain: {model: {path: ./weights}}\n")
    loaded = load_pipeline("b/c.yaml", ["summarize.users.model.path=../llm"]).pipeline
    assert loaded.data.source == MicroLensSourceConfig(
        kind="microlens", pairs=tmp_path / "base/logs/pairs.tsv", titles=Path("/abs/titles.csv")
    )
    assert loaded.data.images.folder == tmp_path / "images"
    assert loaded.templates == tmp_path / "base/texts"
    assert loaded.train.model.path == str(tmp_path / "b/weights")
    assert loaded.summarize.users.model.path == str(tmp_path.parent / "llm")
    assert loaded.summarize.items.model.path == "tiny"


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    loaded = load_pipeline(write("a.yaml", MINIMAL), ["train.model.path=~/model", "data.images.folder=~/images"])
    assert loaded.pipeline.train.model.path == str(tmp_path / "home/model")
    assert loaded.pipeline.data.images.folder == tmp_path / "home/images"


def test_a_hub_id_stays_as_it_is() -> None:
    loaded = load_pipeline(write("a.yaml", MINIMAL), ["train.model.path=Qwen/Qwen2-VL-2B-Instruct"])
    assert loaded.pipeline.train.model.path == "Qwen/Qwen2-VL-2B-Instruct"


def test_templates_may_name_a_bundled_folder_and_a_folder_beside_the_file_wins(tmp_path: Path) -> None:
    write("a.yaml", MINIMAL + "templates: demo\n")
    bundled = load_pipeline("a.yaml").pipeline.templates
    assert bundled is not None
    assert (bundled / "recommend.j2").is_file()
    Path("demo").mkdir()
    assert load_pipeline("a.yaml").pipeline.templates == tmp_path / "demo"


def test_a_protocol_is_a_name_a_path_or_a_change_to_one() -> None:
    write("eval/mine.yaml", "extends: next-item\nk: [1]\nnegatives: {count: 7}\n")
    write("a.yaml", MINIMAL.replace("next-item", "eval/mine.yaml"))
    write("b.yaml", "extends: a.yaml\nevaluate: {protocol: {confidence: {samples: 500}}}\n")
    mine = load_pipeline("a.yaml").pipeline.evaluate.protocol
    assert (mine.name, mine.k, mine.negatives.count, mine.confidence.samples) == ("mine", (1,), 7, 10_000)
    changed = load_pipeline("b.yaml", ["evaluate.protocol.k=[1, 2]"]).pipeline.evaluate.protocol
    assert (changed.name, changed.k, changed.negatives.count, changed.confidence.samples) == ("mine", (1, 2), 7, 500)
    other = load_pipeline("b.yaml", ["evaluate.protocol=next-item"]).pipeline.evaluate.protocol
    assert other == ProtocolConfig(name="next-item", primary="ndcg", negatives=SEEN)


def test_an_inline_protocol_needs_no_file() -> None:
    write("a.yaml", MINIMAL.replace("protocol: next-item", "protocol: {name: own, k: [1]}"))
    assert load_pipeline("a.yaml").pipeline.evaluate.protocol == ProtocolConfig(name="own", k=(1,), negatives=SEEN)


def test_an_existing_file_wins_over_a_bundled_name() -> None:
    write("microlens-50k", MINIMAL)
    assert isinstance(load_pipeline("microlens-50k").pipeline.data.source, SyntheticSourceConfig)


def test_a_folder_of_a_bundled_name_does_not_hide_it() -> None:
    Path("microlens-50k").mkdir()
    assert isinstance(load_pipeline("microlens-50k").pipeline.data.source, MicroLensSourceConfig)


def test_where_names_the_line_that_set_a_key() -> None:
    write("a.yaml", MINIMAL)
    write("b.yaml", "# a variant\nextends: a.yaml\ntrain:\n  epochs: 2\n")
    loaded = load_pipeline("b.yaml", ["seed=3"])
    assert loaded.where("train.epochs") == "b.yaml:4"
    assert loaded.where("data.source.kind") == "a.yaml:2"
    assert loaded.where("data.source.noise") == "a.yaml:2"  # a default: the nearest key above it
    assert loaded.where("seed") == "--set"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E+2", 100.0), ("-.5", -0.5), ("1.", 1.0), ("0", 0), ("-7", -7), ("1_000", 1000),
        ("true", True), ("null", None), ("~", None), ("", None), ("no", "no"), ("on", "on"), ("012", "012"),
        ("0x1F", "0x1F"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), (".nan", ".nan"), ("'1'", "1"),
        ("nullable", "nullable"), ("e5", "e5"), ("=", "="), ("[1, 2.5, a]", [1, 2.5, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    problems: list[Problem] = []
    node = parse(text, YamlSource("x", Path()), problems)
    assert not problems
    assert node is not None
    assert node.plain() == value
    assert type(node.plain()) is type(value)


_TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.sampled_from("\n\t"))
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
def test_json_is_read_as_it_is(value: object) -> None:
    problems: list[Problem] = []
    node = parse(json.dumps(value, ensure_ascii=False), YamlSource("x", Path()), problems)
    assert not problems
    assert node is not None
    assert node.plain() == value


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_never_a_crash(text: str) -> None:
    problems: list[Problem] = []
    assert (parse(text, YamlSource("x", Path()), problems) is not None) or problems


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_a_user_error() -> None:
    Path(write("a.yaml", MINIMAL)).chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        load_pipeline("a.yaml")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("{yes: [], no: [No]}", "each side needs a spelling"),
        ("{yes: [' '], no: [No]}", "none may be blank"),
        ("{yes: [Yes, yes], no: [No, yes]}", "a spelling may stand only once"),
    ],
)
def test_answers_that_cannot_be_told_apart_are_refused(answers: str, message: str) -> None:
    text = MINIMAL.replace("train:\n", f"train:\n  answers: {answers}\n")
    with pytest.raises(UserError, match=message):
        load_pipeline(write("p.yaml", text))


def test_answers_are_words_however_yaml_reads_them_elsewhere() -> None:
    text = MINIMAL.replace("train:\n", "train:\n  answers: {yes: [Yes, yes, ' Yes'], no: [No]}\n")
    answers = load_pipeline(write("p.yaml", text)).pipeline.train.answers
    assert (answers.trained, answers.also) == (("Yes", "No"), (("yes", " Yes"), ()))


@pytest.mark.parametrize("text", ["100% #1", "shop [2024] #1/images", "a # b # c", "images  #2"])
def test_a_setting_whose_end_yaml_takes_for_a_comment_is_refused(text: str) -> None:
    write("a.yaml", MINIMAL)
    with pytest.raises(UserError, match="a # after a blank begins a comment"):
        load_pipeline("a.yaml", [f"data.images.folder={text}"])


@pytest.mark.parametrize("text", ["'100% #1'", '"100% #1"', "100%#1", "a [1] b", "a{x}", "50%", "a*b?", "é [1]"])
def test_a_setting_may_be_any_path(tmp_path: Path, text: str) -> None:
    write("a.yaml", MINIMAL)
    loaded = load_pipeline("a.yaml", [f"data.images.folder={text}", "train.epochs=2 # of three"])
    assert loaded.pipeline.data.images.folder == tmp_path / text.strip("'\"")
    assert loaded.pipeline.train.epochs == 2
