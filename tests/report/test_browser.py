"""The report in a real browser: nothing asked for, nothing wrong, the explorer works, everybody can read it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from msr_adapter import schema
from tests.support.browser import FAINT, UNNAMED, Opened, launched, opened
from tests.support.judged_run import Run, make_run

NARROW = {"viewport": {"width": 360, "height": 720}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("run"), users=150)
    made.evaluate()
    return made


@pytest.fixture(scope="module")
def report(run: Run) -> Path:
    return run.root / "evaluate" / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with launched(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def view(browser: Any, report: Path) -> Iterator[Opened]:
    with opened(browser) as made:
        made.open(report)
        yield made
        assert made.errors == []
        assert made.requests == [made.page.url.partition("#")[0]]


def find(view: Opened, name: str) -> None:
    view.page.fill("#find", name)


def until(view: Opened, condition: str) -> None:
    """Wait until a condition holds; Playwright's own waiting compiles texts in the page, which its policy forbids."""
    for _ in range(600):
        if view.page.evaluate(condition):
            return
        view.page.wait_for_timeout(50)
    raise AssertionError(condition)


def user_with(run: Run, item: str) -> str:
    """Return a test user in whose history ``item`` is."""
    examples = schema.read_table(run.data / "examples.parquet", schema.EXAMPLES).filter(pc.field("split") == "test")
    return next(row["user_id"] for row in examples.to_pylist() if item in row["history"])


def test_the_explorer_finds_a_user_and_shows_what_was_read_and_ranked(view: Opened, run: Run) -> None:
    assert view.page.inner_text("#count") == "150 of 150 users"
    find(view, "u077")
    assert view.page.inner_text("#count") == "1 of 150 users"
    assert view.shown_user() == "u077"
    examples = {
        row["user_id"]: row for row in schema.read_table(run.data / "examples.parquet", schema.EXAMPLES).to_pylist()
    }
    shown = view.page.locator("#user .blocks .title").evaluate_all("titles => titles.map(title => title.title)")
    assert [title.rpartition("(item ")[2][:-1] for title in shown] == examples["u077"]["history"]
    assert view.page.locator("#user blockquote").all_inner_texts() == ["likes nothing yet", "likes <b>space</b> and 🪐"]
    assert view.page.locator("#user mark").all_inner_texts() == ["b", "space", "b", "and"]


def test_candidates_stand_in_the_order_of_their_scores_with_the_target_marked(view: Opened, run: Run) -> None:
    find(view, "u042")
    candidates = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES).filter(
        pc.field("example_id") == 42
    )
    scores = schema.read_table(run.trained / "scores.parquet", schema.SCORES).filter(pc.field("example_id") == 42)
    ranked = sorted(zip(scores["logit"].to_pylist(), scores["score"].to_pylist(), candidates.to_pylist(), strict=True),
                    key=lambda row: -row[0])  # fmt: skip
    tiles = view.page.locator("#user > .items > li")
    titles = tiles.locator(".title").evaluate_all("titles => titles.map(title => title.title)")
    assert [title.rpartition("(item ")[2][:-1] for title in titles] == [row["item_id"] for _, _, row in ranked]
    places = tiles.locator(".score").evaluate_all(
        "rows => rows.map(row => [...row.children].map(part => part.textContent))"
    )
    assert places == [[f"#{place}", f"{score:.3f}"] for place, (_, score, _) in enumerate(ranked, 1)]
    [target] = [place for place, (_, _, row) in enumerate(ranked) if row["label"]]
    assert tiles.nth(target).locator(".flag").inner_text() == "target"
    assert view.page.locator("#user .flag").count() == 1
    assert view.page.inner_text("#user h3") == f"Target ranked {target + 1} of 7"


def test_item_images_are_shown(view: Opened) -> None:
    find(view, "u020")
    until(view, "[...document.querySelectorAll('#user img')].every(image => image.complete)")
    widths = view.page.locator("#user img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) >= 5
    assert set(widths) == {56}  # as drawn: small images are not enlarged
    assert len(widths) + view.page.locator("#user .blank").count() == 4 + 7


def test_hostile_titles_are_text(view: Opened, run: Run) -> None:
    for item, title in (
        ("000", "<script>alert(1)</script>"),
        ("001", '"><img src=http://evil.example/x.png onerror=alert(1)>'),
    ):
        find(view, user_with(run, item))
        assert title in view.page.locator("#user .blocks .title").all_text_contents()
    assert view.page.locator("#user script, #user [onerror], img[src^=http]").count() == 0


def test_it_can_be_walked_by_keyboard_alone(view: Opened) -> None:
    page = view.page
    page.keyboard.press("/")
    page.keyboard.type("u01")
    assert page.input_value("#find") == "u01"
    assert view.shown_user() == "u010"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("ArrowDown")
    assert view.shown_user() == "u011"
    assert page.locator("#list [aria-selected=true]").inner_text().startswith("u011")
    active = page.get_attribute("#list", "aria-activedescendant")
    assert page.locator(f"#{active} bdi").inner_text() == "u011"
    page.keyboard.press("End")
    assert view.shown_user() == "u019"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    assert view.shown_user() == "u018"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # the last one stays
    assert view.shown_user() == "u019"
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    assert page.inner_text("#count") == "150 of 150 users"


def test_previous_and_next_follow_the_list(view: Opened) -> None:
    view.page.select_option("#order", "worst")
    view.page.locator("#list li").first.click()
    first = view.shown_user()
    assert view.page.get_by_role("button", name="Previous").is_disabled()
    view.page.get_by_role("button", name="Next").click()
    second = view.shown_user()
    assert [first, second] == view.page.locator("#list bdi").all_inner_texts()[:2]
    assert view.page.url.endswith(f"#user={second}")


def test_filters_keep_what_they_say(view: Opened, run: Run) -> None:
    ranks = [int(text.split()[-1]) for text in view.page.locator("#list .place").all_inner_texts()]
    assert len(ranks) == 80  # the rest is drawn on scrolling
    view.page.locator("#list").evaluate("list => { list.scrollTop = list.scrollHeight }")
    until(view, "document.querySelectorAll('#list li').length === 150")
    view.page.select_option("#outcome", "miss")
    missed = [int(text.split()[-1]) for text in view.page.locator("#list .place").all_inner_texts()]
    assert missed
    assert min(missed) > 5
    view.page.select_option("#outcome", "hit")
    view.page.fill("#from", "2")
    view.page.fill("#to", "3")
    assert {int(text.split()[-1]) for text in view.page.locator("#list .place").all_inner_texts()} == {2, 3}
    find(view, "nobody")
    assert view.page.inner_text("#count") == "0 of 150 users"
    for name in ("#from", "#to", "#find"):
        view.page.fill(name, "")
    view.page.select_option("#outcome", "case")
    assert view.page.locator("#list li").count() == 6


def test_a_user_has_an_address(view: Opened, report: Path) -> None:
    view.page.evaluate("location.hash = '#user=u123'")
    until(view, "document.querySelector('#user .case-head .muted bdi').textContent === 'u123'")
    view.page.evaluate("location.hash = '#user=stranger'")
    until(view, "document.querySelector('#count').textContent.includes('not on this page')")


def test_a_link_opens_its_user(browser: Any, report: Path) -> None:
    with opened(browser) as made:
        made.open(report, "#user=u077")
        assert made.shown_user() == "u077"
        assert made.page.evaluate("document.querySelector('#users').getBoundingClientRect().top < innerHeight")
        assert made.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_its_text_can_be_read(browser: Any, report: Path, scheme: str) -> None:
    with opened(browser, color_scheme=scheme, **NARROW) as made:
        made.open(report)
        assert made.page.evaluate("document.documentElement.scrollWidth") == 360
        assert made.page.evaluate(FAINT) == []
        assert made.page.evaluate(UNNAMED) == []
        made.page.evaluate("document.documentElement.style.setProperty('--muted', '#808080')")
        assert "Find a user by id" in made.page.evaluate(FAINT)  # grey that would be too faint is noticed


def test_on_paper_the_cases_replace_the_explorer(view: Opened) -> None:
    assert not view.page.is_visible(".cases .case >> nth=0")
    view.page.emulate_media(media="print")
    assert view.page.locator(".cases .case").count() == 6
    assert view.page.is_visible(".cases .case >> nth=0")
    assert not view.page.is_visible("#explorer")
    assert not view.page.is_visible(".toc")
    widths = view.page.locator(".cases img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert set(widths) == {56}


def test_without_scripts_the_cases_are_there(browser: Any, report: Path) -> None:
    with opened(browser, java_script_enabled=False) as made:
        made.page.goto(report.as_uri())
        assert made.page.is_visible(".cases .case >> nth=0")
        assert not made.page.is_visible("#explorer")
        assert "Scripts are switched off" in made.page.inner_text("#users")
        assert made.page.is_visible("#curves svg >> nth=0")


def test_an_old_browser_is_told_and_shown_the_cases(browser: Any, report: Path) -> None:
    with opened(browser) as made:
        made.page.add_init_script("delete window.DecompressionStream")
        made.page.goto(report.as_uri())
        made.page.wait_for_selector("html.failed", state="attached")
        assert "cannot open the explorer" in made.page.inner_text("#problem")
        assert made.page.is_visible(".cases .case >> nth=0")


def test_the_first_screen_of_a_desktop_answers(view: Opened) -> None:
    view.page.set_viewport_size({"width": 1280, "height": 800})
    for part in ("h1", ".masthead .lead", ".first .tiles", ".first figure"):
        box = view.page.locator(part).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 800, part


def test_a_metric_is_explained_where_it_is_pointed_at_tapped_or_focused(view: Opened) -> None:
    terms, tip = view.page.locator(".term"), view.page.locator("#tip")
    assert terms.count() > 5
    assert tip.is_hidden()
    for ask in ("hover", "focus", "click"):
        getattr(terms.nth(1), ask)()
        assert tip.inner_text() == terms.nth(1).get_attribute("data-about") != ""
        assert terms.nth(1).get_attribute("aria-describedby") == "tip"
        view.page.keyboard.press("Escape")
        assert tip.is_hidden()
        view.page.mouse.move(0, 0)
        view.page.evaluate("document.activeElement.blur()")


def test_a_table_that_is_wider_than_its_place_says_so(view: Opened) -> None:
    for width in (1280, 360):
        view.page.set_viewport_size({"width": width, "height": 720})
        view.page.wait_for_timeout(200)
        found = view.page.locator(".scroll").evaluate_all(
            "tables => tables.filter(t => !t.closest('details:not([open])'))"
            ".map(t => [t.scrollWidth > t.clientWidth + 1,"
            " getComputedStyle(t.nextElementSibling).display != 'none'])"
        )
        assert all(wider == said for wider, said in found)
    assert any(wider for wider, _ in found)
