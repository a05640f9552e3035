"""The report's page: self-contained, escaped, complete."""

import base64
import hashlib
import io
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msr_adapter.data.audit.checks import audit_statistics
from msr_adapter.data.audit.report import Audit
from msr_adapter.metrics import evaluate_groups
from msr_adapter.report.curves import roc_points
from msr_adapter.report.data_quality import data_facts, heuristic_rows
from msr_adapter.report.report_context import PageLimits
from msr_adapter.report.sections import findings, flatten
from msr_adapter.report.svg import draw_svg
from msr_adapter.report.training import read_training_log
from msr_adapter.report.user_sample import pick_cases
from msr_adapter.report.user_texts import clip
from tests.support.audited import TEST, TRAIN, User, evidence
from tests.support.judged_run import LENGTHS, STATISTICS, Run, make_run

_LOADS = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}
_VOID = {"meta", "link", "img", "br", "hr", "input"}


class _Page(HTMLParser):
    """Collects what the tests ask: loads, ids, tags, text, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [] if tag in _VOID else [tag]
        self.loads += [value or "" for key, value in attrs if key in _LOADS]
        self.handlers += [key for key, _ in attrs if key == "style" or key.startswith("on")]
        self.ids += [value or "" for key, value in attrs if key == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("run"))
    made.evaluate()
    return made


@pytest.fixture(scope="module")
def page(run: Run) -> _Page:
    return _Page(run.report())


def test_it_loads_nothing(run: Run, page: _Page) -> None:
    assert page.loads
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    assert not re.findall(r"url\((?!#)|@import", run.report())
    assert not {"iframe", "object", "embed", "base", "form"} & set(page.tags)


def test_its_policy_lets_only_our_own_script_and_style_run(run: Run, page: _Page) -> None:
    report = run.report()
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', report)
    assert policy.startswith("default-src &#39;none&#39;; img-src data:; style-src ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        [source] = re.findall(rf"<{tag}>(.*?)</{tag}>", report, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy
    assert page.tags.count("script") == 3  # two more hold data
    assert report.count('<script type="text/plain"') == 2
    assert not page.handlers


def test_its_markup_is_closed_and_its_ids_are_unique(page: _Page) -> None:
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {load[1:] for load in page.loads if load.startswith("#")} <= set(page.ids)


def test_hostile_text_is_text(run: Run, page: _Page) -> None:
    text = "".join(page.text)
    assert "<script>bad()</script> 3 users dropped" in text
    assert "a <b>bold</b> run" in text
    assert "likes <b>space</b> and 🪐" in text
    assert "</pre><script>x</script>" in text
    assert "\0" not in run.report()
    assert "\x1b" not in run.report()
    assert page.tags.count("script") == 3


def test_every_hostile_title_can_be_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path, users=3)  # three users: every case is shown
    rows = [f"{number:03d}" for number in range(8)]
    _use_items(run, rows)
    run.evaluate()
    text = "".join(_Page(run.report()).text)
    for shown in ("<script>alert(1)</script>", '"><img src=http://evil.example/x.png', "مرحبا بالعالم", "🎬🧑‍🚀 a film",
                  "long long", "two lines and control", "(no title)", "{{ 7*7 }} {% raw %}"):  # fmt: skip
        assert shown in text
    assert len(run.report()) < 400_000


def _use_items(run: Run, items: list[str]) -> None:
    """Give every example the same history."""
    import pyarrow as pa

    from msr_adapter import schema

    table = schema.read_table(run.data / "examples.parquet", schema.EXAMPLES)
    history = pa.array([items] * table.num_rows, schema.EXAMPLES.field("history").type)
    table = table.set_column(3, schema.EXAMPLES.field("history"), history)
    schema.write_table(table, schema.EXAMPLES, run.data / "examples.parquet")


def test_it_tells_everything(run: Run, page: _Page) -> None:
    text = " ".join("".join(page.text).split())
    metrics = run.metrics()
    for needed in ("Given 7 candidates", "guessing for 71%",
                   "to the true preferences of this synthetic dataset", "dropped: short",
                   "Only 40 test users", "NDCG@10 by model", "HR@k by k", "ROC", "Training loss", "Learning rate",
                   "Best", "Worst", "target", "Items 1 to 3, then the user summary", "likes nothing yet", "512 MiB",
                   "Calibration", "Are the probabilities calibrated?", "Beyond accuracy", "By item popularity",
                   metrics["candidates"]["digest"][:16], metrics["protocol_digest"][:16], "torch 0", "steps: 50",
                   "kind: synthetic", "Rows may have up to 1,030 tokens.",
                   "How many training interactions the item has0.7900.780",
                   "39% on average", "Checkpoint kept30of 50 steps, stopped early of 60: best AUC of 5",
                   "85", "9,412 tokens per second", "41,312", "3.7% of 1.12 million", "83 s",
                   "since step 20, where it resumed", "1.5 GiB", "and 1.0 GiB of main memory",
                   "Training loss0.412from 0.693",
                   "AUC on validation users", "Validation loss", "untrained0.510.450 – .560"):  # fmt: skip
        assert needed in text, needed
    for model in metrics["models"]:
        assert f"{metrics['models'][model]['metrics']['auc']['mean']:.3f}" in text


def test_it_is_laid_out_for_everyone(run: Run, page: _Page) -> None:
    report = run.report()
    for needed in ('lang="en"', 'name="viewport"', "prefers-color-scheme: dark", "@media print", ":focus-visible",
                   'tabindex="0"', 'scope="row"', 'scope="col"', "@media (scripting: none)",
                   'role="listbox"'):  # fmt: skip
        assert needed in report
    assert page.tags.count("h1") == page.tags.count("main") == 1
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_thumbnails_are_small_and_broken_images_do_no_harm(run: Run, page: _Page) -> None:
    images = [load for load in page.loads if load.startswith("data:image/webp")]
    assert images
    for image in images:
        with Image.open(io.BytesIO(base64.b64decode(image.split(",")[1]))) as image_file:
            assert max(image_file.size) <= 144
    assert "no image" in "".join(page.text)


def test_users_shown_are_the_best_typical_and_worst() -> None:
    # ranks 1 (lead 4), 1 (lead 1), 2, 2, 3, 3 of three candidates
    scores = [5, 1, 0, 2, 1, 0, 1, 2, 0, 1, 2, 0, 0, 2, 3, 0, 1, 2]
    result = evaluate_groups(scores, [1, 0, 0] * 6, np.arange(7) * 3)
    assert pick_cases(result) == [("Best", 0), ("Best", 1), ("Typical", 2), ("Typical", 3), ("Worst", 4), ("Worst", 5)]


def test_a_single_user_is_one_case() -> None:
    assert pick_cases(evaluate_groups([1, 0], [1, 0], [0, 2])) == [("Best", 0)]


def test_long_candidate_lists_are_cut_but_keep_the_target(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.evaluate(limits=PageLimits(candidates=2))
    text = "".join(_Page(run.report()).text)
    assert "4 candidates further down are not shown." in text  # the target of a worst case is kept
    assert text.count("target") >= 6


def test_clip_keeps_one_clean_line() -> None:
    assert clip("a\n b\0c\u2028d", 20) == "a b c d"
    assert clip("x" * 50, 10) == "x" * 9 + "…"
    assert clip("exactly", 7) == "exactly"


def test_the_training_log_keeps_the_last_line_about_a_step_and_skips_a_cut_one(tmp_path: Path) -> None:
    log = tmp_path / "trainer_log.jsonl"
    rows = ('{"current_steps": 2, "loss": 3}', '{"current_steps": 1, "loss": 4, "lr": 0.1}', "[]",
            '{"current_steps": 2, "loss": 1}', '{"current_steps": 2, "eval_loss": 0.5}', '{"current_st')  # fmt: skip
    log.write_text("\n".join(rows))
    history = read_training_log(log)
    assert history.loss == {1: 4.0, 2: 1.0}
    assert list(history.loss) == [1, 2]
    assert history.validation == {2: 0.5}
    assert history.rate == {1: 0.1}
    assert read_training_log(tmp_path / "none").loss == read_training_log(None).loss == {}


def test_findings_are_ordered_and_unknown_severities_kept() -> None:
    found = findings([{"severity": "odd", "text": "b"}, {"severity": "error", "text": "a", "extra": 1}, {}])
    assert [(row["severity"], row["text"]) for row in found] == [("error", "a"), ("info", "b"), ("info", "")]


def test_data_quality_by_hand() -> None:
    audit = {"statistics": STATISTICS}
    assert heuristic_rows(audit) == [
        {"label": "How many training interactions the item has", "auc": "0.790", "gauc": "0.780"},
        {"label": "Words shared with the titles of the history", "auc": "0.650", "gauc": "0.640"},
    ]
    assert data_facts(audit, LENGTHS) == [
        ("Kept", "3,400 interactions, 1,200 users, 60 items (density 4.72%)"),
        ("Interactions per user", "median 2 (90% between 1 and 9)"),
        ("Interactions per item", "1"),
        ("History of a test user", "median 2 items (90% between 1 and 9)"),
        ("Time from first to last", "31 days"),
        ("Training log later than a test target", "39% on average"),
        ("Never seen in training", "2.4% of test targets, 30.0% of negatives"),
        ("Negatives per positive in training", "4"),
        ("Titles", "0.0% empty, 1.0% shared with another item, 2.0% nearly so"),
        ("Items with an image", "75.0%, 12.5% of them shared with another item"),
        ("Tokens of a training row, estimated", "median 190, at most 1,030; the limit is 512"),
    ]


def test_the_report_knows_the_keys_of_a_real_audit() -> None:
    users = [User(TRAIN, [0, 1, 2], [3]), User(TRAIN, [0, 1, 3], [2]), User(TEST, [0, 2, 3], [1])]
    inputs = evidence(users, ["a red book", "a blue book", "", "a red ship"], ["a.png", None, "b.png", "c.png"])
    audit = {"statistics": audit_statistics(inputs, Audit())}
    assert [row["label"] for row in heuristic_rows(audit)][::2] == [
        "How many training interactions the item has", "Words shared with the titles of the history",
    ]  # fmt: skip
    assert [name for name, _ in data_facts(audit, {})] == [
        "Kept", "Interactions per user", "Interactions per item", "History of a test user", "Time from first to last",
        "Training log later than a test target", "Negatives that first appear after the test target",
        "Never seen in training", "Negatives per positive in training", "Titles", "Items with an image",
    ]  # fmt: skip


def test_what_was_not_measured_is_left_out() -> None:
    assert (heuristic_rows({}), data_facts({}, {})) == ([], [])
    bare = {"time": {"timestamps": False, "days": None}, "time_leakage": {}, "cold": {}, "history": {},
            "titles": {"empty": 1.0}, "labels": {"train": {"positives": 0, "negatives": 0}},
            "images": {"with_image": 0.0}, "heuristics": {}}  # fmt: skip
    assert data_facts({"statistics": bare}, {}) == [
        ("Titles", "100.0% empty, 0.0% shared with another item, 0.0% nearly so"), ("Items with an image", "0.0%"),
    ]  # fmt: skip


def test_nested_counts_are_flattened() -> None:
    counts = {"rows": 12345, "dropped_users": {"too_short": 2, "names": ["a"]}}
    assert flatten(counts) == [("rows", "12,345"), ("dropped users: too short", "2"), ("dropped users: names", "['a']")]
    assert flatten({"share": 0.123456, "none": None, "yes": True}) == [
        ("share", "0.1235"),
        ("none", "None"),
        ("yes", "1"),
    ]


def test_plots_take_their_colours_and_fonts_from_the_page() -> None:
    svg = draw_svg("one", 'called "one"', lambda axes: axes.plot([1, 2], [3, 4], color="#040404", label="$x$") and None)
    assert svg.startswith('<svg role="img" aria-label="called &quot;one&quot;" ')
    assert 'stroke="var(--trained)"' in svg
    assert not re.search(r"#0[1-9a-d]0[1-9a-d]0[1-9a-d]|font-family|DejaVu|style=", svg)
    assert not re.findall(r'id="(?!one-)', svg)


@pytest.mark.parametrize("chunk", [3, 1000])
def test_the_area_under_the_roc_points_is_the_auc(chunk: int) -> None:
    generator = np.random.default_rng(chunk)
    for size in (2, 5, 50):
        labels = np.append([0, 1], generator.integers(0, 2, size)).astype(np.int8)
        scores = generator.integers(0, 6, len(labels)).astype(np.float64)  # many ties
        false, true = roc_points(scores, labels, chunk)
        area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
        assert area == pytest.approx(evaluate_groups(scores, labels, [0, len(labels)], ["auc"]).pooled["auc"])


def test_roc_points_by_hand_and_thinned() -> None:
    false, true = roc_points(np.array([0.9, 0.8, 0.8, 0.1]), np.array([1, 1, 0, 0], np.int8))
    assert (false.tolist(), true.tolist()) == ([0, 0, 0.5, 1], [0, 0.5, 1, 1])  # the tie is one step
    generator = np.random.default_rng(0)
    labels = (generator.random(20_000) < 0.1).astype(np.int8)
    scores = generator.standard_normal(20_000) + labels
    false, true = roc_points(scores, labels)
    assert len(false) <= 202
    assert np.all(np.diff(false) >= 0)
    assert np.all(np.diff(true) >= 0)
    for place in (20, 100, 180):  # thinned, but each point is on the curve
        cut = np.quantile(scores[labels == 1], 1 - true[place])
        assert np.mean(scores[labels == 0] >= cut) == pytest.approx(false[place], abs=0.005)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
    assert area == pytest.approx(evaluate_groups(scores, labels, [0, 20_000], ["auc"]).pooled["auc"], abs=0.003)
