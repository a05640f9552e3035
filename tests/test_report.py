"""The report: self-contained, escaped, complete; and it opens in a browser."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from judged_run import Run, make_run
from PIL import Image

from msr_adapter.evaluate.cases import clip, pick
from msr_adapter.evaluate.history import read_history
from msr_adapter.evaluate.plots import draw_svg
from msr_adapter.evaluate.sections import findings, flatten
from msr_adapter.metrics import evaluate_groups

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
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [] if tag in _VOID else [tag]
        self.loads += [value or "" for key, value in attrs if key in _LOADS]
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


def test_it_loads_nothing_and_runs_nothing(run: Run, page: _Page) -> None:
    assert page.loads
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    assert not re.findall(r"url\((?!#)|@import", run.report())
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert "default-src 'none'" in run.report()


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


def test_every_hostile_title_can_be_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path, users=3)  # three users: every case is shown
    rows = [f"{number:03d}" for number in range(8)]
    _use_items(run, rows)
    run.evaluate()
    text = "".join(_Page(run.report()).text)
    for shown in ("<script>alert(1)</script>", '"><img src=http://evil.example/x.png', "مرحبا بالعالم", "🎬🧑‍🚀 a film",
                  "long long", "two lines and control", "(no title)", "{{ 7*7 }} {% raw %}"):  # fmt: skip
        assert shown in text
    assert len(run.report()) < 300_000


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
    for needed in ("Shown 7 candidates", "guessing for 71%", "what the shop's true tastes achieve", "dropped: short",
                   "Only 40 test users", "AUC by model", "HR@k by k", "Training loss", "Best", "Worst", "true item",
                   metrics["candidates"]["digest"][:16], metrics["protocol_digest"][:16], "torch 0", "steps: 30",
                   "kind: shop"):  # fmt: skip
        assert needed in text, needed
    for model in metrics["models"]:
        assert f"{metrics['models'][model]['metrics']['auc']['mean']:.3f}" in text


def test_it_is_laid_out_for_everyone(run: Run, page: _Page) -> None:
    report = run.report()
    for needed in ('lang="en"', 'name="viewport"', "prefers-color-scheme: dark", "@media print", ":focus-visible",
                   'tabindex="0"', 'scope="row"', 'scope="col"'):  # fmt: skip
        assert needed in report
    assert page.tags.count("h1") == page.tags.count("main") == 1


def test_thumbnails_are_small_and_broken_images_do_no_harm(run: Run, page: _Page) -> None:
    images = [load for load in page.loads if load.startswith("data:image/webp")]
    assert images
    for image in images:
        with Image.open(io.BytesIO(base64.b64decode(image.split(",")[1]))) as picture:
            assert max(picture.size) <= 112
    assert "no image" in "".join(page.text)


def test_users_shown_are_the_best_typical_and_worst() -> None:
    # ranks 1 (lead 4), 1 (lead 1), 2, 2, 3, 3 of three candidates
    scores = [5, 1, 0, 2, 1, 0, 1, 2, 0, 1, 2, 0, 0, 2, 3, 0, 1, 2]
    result = evaluate_groups(scores, [1, 0, 0] * 6, np.arange(7) * 3)
    assert pick(result) == [("Best", 0), ("Best", 1), ("Typical", 2), ("Typical", 3), ("Worst", 4), ("Worst", 5)]


def test_a_single_user_is_one_case() -> None:
    assert pick(evaluate_groups([1, 0], [1, 0], [0, 2])) == [("Best", 0)]


def test_long_candidate_lists_are_cut_but_keep_the_true_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.evaluate.cases._SHOWN_CANDIDATES", 2)
    run = make_run(tmp_path)
    run.evaluate()
    text = "".join(_Page(run.report()).text)
    assert "4 candidates further down are not shown." in text  # the true item of a worst case is kept
    assert text.count("true item") >= 6


def test_clip_keeps_one_clean_line() -> None:
    assert clip("a\n b\0c\u2028d", 20) == "a b c d"
    assert clip("x" * 50, 10) == "x" * 9 + "…"
    assert clip("exactly", 7) == "exactly"


def test_history_keeps_the_last_word_on_a_step_and_skips_a_cut_line(tmp_path: Path) -> None:
    log = tmp_path / "trainer_log.jsonl"
    rows = ('{"current_steps": 2, "loss": 3}', '{"current_steps": 1, "loss": 4}', "[]",
            '{"current_steps": 2, "loss": 1}', '{"current_steps": 2, "eval_loss": 0.5}', '{"current_st')  # fmt: skip
    log.write_text("\n".join(rows))
    history = read_history(log)
    assert history.loss == {1: 4.0, 2: 1.0}
    assert list(history.loss) == [1, 2]
    assert history.validation == {2: 0.5}
    assert read_history(tmp_path / "none").loss == read_history(None).loss == {}


def test_findings_are_ordered_and_unknown_severities_kept() -> None:
    found = findings([{"severity": "odd", "text": "b"}, {"severity": "error", "text": "a", "extra": 1}, {}])
    assert [(row["severity"], row["text"]) for row in found] == [("error", "a"), ("info", "b"), ("info", "")]


def test_nested_counts_are_flattened() -> None:
    counts = {"rows": 12345, "dropped_users": {"too_short": 2, "names": ["a"]}}
    assert flatten(counts) == [("rows", "12,345"), ("dropped users: too short", "2"), ("dropped users: names", "['a']")]


def test_plots_take_their_colours_and_fonts_from_the_page() -> None:
    svg = draw_svg("one", lambda axes: axes.plot([1, 2], [3, 4], color="#040404", label="line") and None)
    assert svg.startswith("<svg ")
    assert "var(--trained)" in svg
    assert not re.search(r"#0[1-8]0[1-8]0[1-8]|font-family|DejaVu", svg)
    assert not re.findall(r'id="(?!one-)', svg)


def test_it_opens_in_a_browser(run: Run, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser on this machine")
    picture = tmp_path / "page.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", "--window-size=900,1200",
               (run.root / "evaluate" / "report.html").as_uri()]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(picture) as image:
        assert len(image.convert("RGB").getcolors(2**20) or []) > 20  # something was drawn
