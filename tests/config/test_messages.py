"""Every class of bad config, with the exact message a user reads."""

from pathlib import Path

import pytest

from msr_adapter.config.bundled import bundled_files
from msr_adapter.config.loader import load_pipeline
from msr_adapter.errors import UserError
from tests.support.pipelines import MINIMAL

PYTHON = "tag:yaml.org,2002:python/name:"
PROTOCOL = "a protocol's name, its path, or the protocol itself"
KINDS = (
    "one of table, microlens, amazon-2023, mllm-msr-amazon, movielens, recbole, mmrec, pixelrec, hm, kuairec, mind, "
    "netflix, sql, huggingface, synthetic"
)
SEED = "a whole number, at least 0, at most 4,294,967,295"
SHARES = "expected a list of 3, each a number"
LORA = "known here: rank, alpha, dropout, target"
TOP = (
    "known here: name, seed, run_dir, cache, templates, data, split, summarize, train, evaluate, embedding, fusion, "
    "execution, tracking"
)


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(text: str, *sets: str) -> list[str]:
    """Load ``p.yaml`` with ``text`` and return the lines of the error."""
    Path("p.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_pipeline("p.yaml", sets)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sead: 3", f"p.yaml:10 sead: unknown key; {TOP}. Did you mean `seed`?"),
        ("zzz: 3", f"p.yaml:10 zzz: unknown key; {TOP}"),
        ("seed: abc", f"p.yaml:10 seed: the text 'abc'; expected {SEED}"),
        ("seed: -1", f"p.yaml:10 seed: the number -1; expected {SEED}"),
        ("seed: 1.5", f"p.yaml:10 seed: the number 1.5; expected {SEED}"),
        ("seed: true", f"p.yaml:10 seed: true; expected {SEED}"),
        ("seed: null", f"p.yaml:10 seed: null; expected {SEED}"),
        ("seed: [1]", f"p.yaml:10 seed: a list of 1; expected {SEED}"),
        ("seed: {a: 1}", f"p.yaml:10 seed: a mapping; expected {SEED}"),
        ("split: 3", "p.yaml:10 split: the number 3; expected a mapping"),
        ("split: {fractions: [1, 1, 1]}", "p.yaml:10 split.fractions: 1.0, 1.0, 1.0 are not shares that sum to 1"),
        ("split: {fractions: [0.9, 0.1]}", "p.yaml:10 split.fractions: a list of 2; " + SHARES),
        (
            "split: {fractions: [0.7, 0.1, 0.1, 0.1]}",
            "p.yaml:10 split.fractions: a list of 4; " + SHARES,
        ),
        (
            "split: {fractions: [0.8, 0.1, x]}",
            "p.yaml:10 split.fractions.2: the text 'x'; expected a number",
        ),
        (
            "split: {kind: leave-last}",
            "p.yaml:10 split.kind: the text 'leave-last'; expected one of user-holdout, leave-last-out, "
            "temporal, column. Did you mean `leave-last-out`?",
        ),
        (
            "name: my run",
            "p.yaml:10 name: the text 'my run'; expected up to 200 letters, digits, dots, dashes and underscores, "
            "a letter or digit first",
        ),
        ("templates: [a]", "p.yaml:10 templates: a list of 1; expected a folder, a bundled folder's name, or null"),
        (
            "templates: dmo",
            "p.yaml:10 templates: no folder `dmo`; expected a folder of templates or a bundled one: demo, "
            "demo-attributes, demo-two-images, small, titles. Did you mean `demo`?",
        ),
        ("extends: x.yaml", "p.yaml:10 extends: `x.yaml` is neither a file nor a bundled pipeline; bundled: {names}"),
        ("extends: {a: 1}", "p.yaml:10 extends: not a name; expected a name, a path, or a list of them"),
        ("extends: p.yaml", "p.yaml:10 extends: a circle: p.yaml -> p.yaml. Cut it in one file"),
        ("data: {}", "p.yaml:10 data: the key stands here and in line 1. Keep one of them"),
        ("seed: !!python/name:os.system x", f"p.yaml:10 seed: the tag {PYTHON}os.system. Write the plain value"),
        ("? [a, b]\n: 1", "p.yaml:10: a key that is not text. Write `key: value`"),
        ("split: &s {kind: *s}", "p.yaml:10 split.kind: the value contains itself. Write it out without the alias"),
        ("a: b: c", "p.yaml:10: not valid YAML: mapping values are not allowed here"),
        ("a: *b", "p.yaml:10: not valid YAML: found undefined alias 'b'"),
        ("\x01", "p.yaml:10: the control character U+0001"),
    ],
)  # fmt: skip
def test_one_bad_line(line: str, message: str) -> None:
    names = ", ".join(file.name for file in bundled_files("pipelines"))
    assert problems(MINIMAL + line + "\n")[0] == message.replace("{names}", names)


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        (
            "  source: {kind: synthetic}", "  {}",
            [f"p.yaml:1 data.source: missing; expected a mapping with `kind`: {KINDS}. "
             "Add `source:` under `data`"],
        ),
        (
            "{kind: synthetic}", "{users: 3}",
            [f"p.yaml:2 data.source.kind: missing; expected {KINDS}. Add `kind:` under `data.source`"],
        ),
        (
            "{kind: synthetic}", "{kind: shop}",
            [f"p.yaml:2 data.source.kind: the text 'shop'; expected {KINDS}. `shop` is now called `synthetic`"],
        ),
        (
            "{kind: synthetic}", "{kind: tabel}",
            [f"p.yaml:2 data.source.kind: the text 'tabel'; expected {KINDS}. Did you mean `table`?"],
        ),
        ("{kind: synthetic}", "{kind: 3}", [f"p.yaml:2 data.source.kind: the number 3; expected {KINDS}"]),
        (
            "{kind: synthetic}", "shop",
            [f"p.yaml:2 data.source: the text 'shop'; expected a mapping with `kind`: {KINDS}"],
        ),
        (
            "{kind: synthetic}", "{kind: table}",
            ["p.yaml:2 data.source.interactions: missing; expected a path. Add `interactions:` under `data.source`"],
        ),
        (
            "{kind: synthetic}", "{kind: synthetic, itms: 3, users: 0}",
            ["p.yaml:2 data.source.users: the number 0; expected a whole number, at least 1, at most 100,000,000",
             "p.yaml:2 data.source.itms: unknown key; known here: kind, users, items, interactions_per_user, noise, "
             "drift, offered, attributes, second_image. Did you mean `items`?"],
        ),
        (
            "{kind: synthetic}", "{kind: table, interactions: 7}",
            ["p.yaml:2 data.source.interactions: the number 7; expected a path"],
        ),
        (
            "train:\n  model: {path: tiny}", "train: {}",
            ["p.yaml:6 train.model: missing; expected a mapping with `path`. Add `model:` under `train`"],
        ),
        (
            "evaluate:\n  protocol: next-item\n", "",
            ["p.yaml:1 evaluate: missing; expected a mapping with `protocol`. Add `evaluate:` at the top level"],
        ),
        (
            "next-item", "next-itm",
            ["p.yaml:9 evaluate.protocol: `next-itm` is neither a file nor a bundled protocol; bundled: "
             "cold-items, full-ranking, impressions, next-item, paper, popularity-matched, released-code. "
             "Did you mean `next-item`?"],
        ),
        ("next-item", "3", [f"p.yaml:9 evaluate.protocol: the number 3; expected {PROTOCOL}"]),
        (
            "next-item", "next-item\n  baselines: [randm]",
            ["p.yaml:10 evaluate.baselines.0: the text 'randm'; expected one of random, popularity, "
             "recency, title-overlap, item-knn, mf, sasrec, base. Did you mean `random`?"],
        ),
        (
            "next-item", "{name: x, k: [0]}",
            ["p.yaml:9 evaluate.protocol.k.0: the number 0; expected a whole number, at least 1, "
             "at most 1,000,000,000"],
        ),
    ],
)  # fmt: skip
def test_a_bad_part(old: str, new: str, messages: list[str]) -> None:
    assert old in MINIMAL
    assert problems(MINIMAL.replace(old, new)) == messages


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed=x", f"--set seed: the text 'x'; expected {SEED}"),
        (
            "train.lora.rnk=4",
            "--set train.lora.rnk: unknown key; known here: rank, alpha, dropout, target. Did you mean `rank`?",
        ),
        ("trian.epochs=4", f"--set trian: unknown key; {TOP}. Did you mean `train`?"),
        ("seed.x=4", f"--set seed: a mapping; expected {SEED}"),
        ("seed", "--set: `seed` is not a setting; expected key=value, e.g. `train.epochs=2`"),
        ("=3", "--set: `=3` is not a setting; expected key=value, e.g. `train.epochs=2`"),
        ("a..b=3", "--set: `a..b=3` is not a setting; expected key=value, e.g. `train.epochs=2`"),
        ("extends=demo", f"--set extends: unknown key; {TOP}"),
        (
            "data.source.delimiter=,",
            "--set data.source.delimiter: not valid YAML: while parsing a block node, expected the node content, but "
            "found ','. Quote it: --set data.source.delimiter='\"...\"'",
        ),
        (
            "templates=x",
            "--set templates: no folder `x`; expected a folder of templates or a bundled one: demo, demo-attributes, "
            "demo-two-images, small, titles",
        ),
    ],
)
def test_a_bad_setting(setting: str, message: str) -> None:
    assert problems(MINIMAL, setting) == [message]


def test_all_problems_come_at_once_by_file_and_line() -> None:
    Path("parent.yaml").write_text("split: {max_histroy: 3}\n" + MINIMAL)
    found = problems(
        "extends: parent.yaml\nseed: -1\ntrain:\n  epochs: 0\n  images: true\n  images: false\n", "data.limit.users=0"
    )
    assert [line.split(":")[0] + ":" + line.split(":")[1].split()[0] for line in found[1:]] == [
        "p.yaml:2", "p.yaml:4", "p.yaml:6", "parent.yaml:1",
    ]  # fmt: skip
    assert (
        found[0]
        == "--set data.limit.users: the number 0; expected a whole number, at least 1, at most 1,000,000,000, or null"
    )


def test_a_missing_key_is_shown_where_its_parent_stands_even_after_set() -> None:
    text = "# comment\n" + MINIMAL.replace("  model: {path: tiny}\nevaluate", "  method: full\nevaluate")
    assert problems(text, "train.epochs=2")[0].startswith("p.yaml:7 train.model: missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.yaml:1: the file is empty; expected `key: value` lines"),
        ("# nothing\n", "p.yaml:1: the file is empty; expected `key: value` lines"),
        ("- a\n", "p.yaml:1: the file is not a mapping; expected `key: value` lines"),
    ],
)
def test_a_file_without_a_mapping(text: str, message: str) -> None:
    assert problems(text) == [message]


def test_a_file_that_is_not_utf8() -> None:
    Path("p.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(UserError, match=r"^p\.yaml: not UTF-8 text\. Save the file as UTF-8$"):
        load_pipeline("p.yaml")


def test_a_byte_order_mark_is_no_problem() -> None:
    Path("p.yaml").write_text(MINIMAL, encoding="utf-8-sig")
    assert load_pipeline("p.yaml").pipeline.name == "p"


def test_a_circle_of_two_files() -> None:
    Path("other.yaml").write_text("extends: p.yaml\n")
    assert problems("extends: other.yaml\n") == [
        "other.yaml:1 extends: a circle: p.yaml -> other.yaml -> p.yaml. Cut it in one file"
    ]


@pytest.mark.parametrize("name", ["shop.yaml", "log.csv"])
def test_a_file_that_is_not_there_does_not_list_what_is_bundled(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_pipeline(name)
    assert str(caught.value) == (
        f"`{name}` is neither a file nor a bundled pipeline; a YAML file, or a name that `msr ls` lists. "
        "`msr init LOG ITEMS` writes one for your files"
    )


def test_a_name_that_is_nothing() -> None:
    with pytest.raises(UserError) as caught:
        load_pipeline("microlens50k")
    assert str(caught.value).startswith("`microlens50k` is neither a file nor a bundled pipeline; bundled: ")
    assert str(caught.value).endswith("Did you mean `microlens-50k`?")


def test_a_folder_is_no_pipeline() -> None:
    Path("here").mkdir()
    with pytest.raises(UserError, match=r"^`here` is a folder; bundled: "):
        load_pipeline("here")


CORE = "tag:yaml.org,2002:"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: " + "9" * 5000,
         "p.yaml:10 seed: a whole number of 5,000 digits; expected 64 bits at most. Write a smaller one"),
        ("seed: 4294967296", f"p.yaml:10 seed: the number 4294967296; expected {SEED}"),
        ("seed: !!int x", f"p.yaml:10 seed: the text 'x' under the tag {CORE}int. Write the plain value"),
        ("seed: !!int 09", f"p.yaml:10 seed: the text '09' under the tag {CORE}int. Write the plain value"),
        ("seed: !!binary abc=", f"p.yaml:10 seed: the tag {CORE}binary. Write the plain value"),
        ("seed: !!timestamp x", f"p.yaml:10 seed: the tag {CORE}timestamp. Write the plain value"),
        ("seed: !!bool maybe", f"p.yaml:10 seed: the text 'maybe' under the tag {CORE}bool. Write the plain value"),
        ("seed: !!set {a}", f"p.yaml:10 seed: the tag {CORE}set. Write the plain value"),
        ("seed: !!str [a]", f"p.yaml:10 seed: the tag {CORE}str. Write the plain value"),
        ('name: "a\\ud800"', "p.yaml:10 name: the lone surrogate U+D800. Write the character itself"),
        ('"\\ud800": 1', "p.yaml:10: the lone surrogate U+D800. Write the character itself"),
        ('name: "\\U00110000"', "p.yaml:10: not valid YAML: chr() arg not in range(0x110000)"),
        ("split: {until: 999999999999999999}",
         "p.yaml:10 split.until: the number 999999999999999999; expected a date (2024-06-30 or 2024-06-30T12:00:00Z), "
         "milliseconds since 1970, or null, up to the year 9999"),
        ("run_dir: " + "a" * 5000, "p.yaml:10 run_dir: a name of 5,000 bytes; a path"),
        ("run_dir: ~nobody-here/x",
         "p.yaml:10 run_dir: the home of a user who is not known here (~nobody-here/x); a path"),
        ("templates: " + "a" * 5000, "p.yaml:10 templates: a name of 5,000 bytes; a path"),
        ("extends: " + "a" * 5000,
         f"p.yaml:10 extends: `{'a' * 60}...` is neither a file nor a bundled pipeline; bundled: {{names}}"),
    ],
)  # fmt: skip
def test_what_nothing_can_hold_is_refused(line: str, message: str) -> None:
    names = ", ".join(file.name for file in bundled_files("pipelines"))
    assert problems(MINIMAL + line + "\n") == [message.replace("{names}", names)]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.lora.alpha=1e999",
         "train.lora.alpha: the number 1e999; expected one below 1.8e308. Write a smaller one"),
        ("train.lora.alpha=1000001",
         "train.lora.alpha: the number 1000001; expected a whole number, at least 1, at most 1,000,000, or null"),
        ("evaluate.protocol.negatives.alpha=1e300",
         "evaluate.protocol.negatives.alpha: the number 1e+300; expected a number, at least 0, at most 100"),
        ("data.images.max_file_mb=1e22",
         "data.images.max_file_mb: the number 1e+22; expected a whole number, at least 1, at most 65,536"),
        ("train.learning_rate=.nan",
         "train.learning_rate: the text '.nan'; expected a number, more than 0, at most 1,000"),
        ("train.learning_rate=!!float .inf",
         f"train.learning_rate: the text '.inf' under the tag {CORE}float. Write the plain value"),
        ("train.overrides={x: [1e999]}",
         "train.overrides.x.0: the number 1e999; expected one below 1.8e308. Write a smaller one"),
        ("train.selection.metric=ndcg@" + "9" * 5000,
         f"train.selection.metric: the text 'ndcg@{'9' * 55}...'; expected auc, gauc, or hr, recall, precision, mrr, "
         "map or ndcg with a cut-off, such as ndcg@10"),
        ("summarize.items.model={path: x, backend: server, server: {url: 'http://[::1'}}",
         "summarize.items.model.server.url: not the address of a server, such as http://localhost:8000/v1"),
        ("train.start=~nobody-here", "train.start: the home of a user who is not known here (~nobody-here); a path"),
    ],
)  # fmt: skip
def test_numbers_beyond_a_librarys_range_are_refused(setting: str, message: str) -> None:
    assert problems(MINIMAL, setting) == [f"--set {message}"]


def test_every_number_of_the_config_has_both_bounds() -> None:
    from msr_adapter.config.error_messages import words
    from msr_adapter.config.schema import StrictModel

    waiting, numbers = [StrictModel], 0
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        assert not model.model_config.get("allow_inf_nan", True)
        for name, field in model.model_fields.items():
            said = words(field.annotation, field.metadata)
            if name in ("fractions", "validation_from", "test_from", "until"):  # held by validators of their own
                continue
            if "number" in said:
                numbers += 1
                assert "at least" in said or "more than" in said, name
                assert "at most" in said or "less than" in said, name
    assert numbers > 60


def test_a_run_folder_that_can_be_none_is_refused() -> None:
    Path("p.yaml").write_text(MINIMAL, encoding="utf-8")
    with pytest.raises(UserError, match="--run-dir: a name of 5,000 bytes; a path"):
        load_pipeline("p.yaml", (), Path("a" * 5000))


@pytest.mark.parametrize("name", ["orders.csv", "orders.tsv.gz", "orders.parquet"])
def test_a_table_is_no_pipeline_and_init_makes_one_for_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("user,item\n1,2\n")
    with pytest.raises(UserError) as caught:
        load_pipeline(str(tmp_path / name))
    [problem] = caught.value.problems
    assert problem.found == "a table, no pipeline"
    assert "`msr init " in problem.next_step
