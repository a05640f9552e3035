"""The page of `msr serve` in a real browser: users and histories, summaries and lists; everybody can use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.pipeline import run
from msr_adapter.progress import Reporter
from tests.support.browser import FAINT, UNNAMED, launched
from tests.support.scripted_pipeline import pretend_to_train_stages, scripted
from tests.support.serving import Served, listening, served

PHONE = {"viewport": {"width": 390, "height": 844}}
TOKEN = "a-token-of-the-page-test"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("synthetic")
    (folder / "scripted.yaml").write_text(scripted(24))
    loaded = load_pipeline(str(folder / "scripted.yaml"), (), folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        pretend_to_train_stages(patch)
        run(loaded, ("train",), reporter=Reporter(quiet=True))
        yield loaded


@pytest.fixture(scope="module")
def server(pipeline: Any) -> Iterator[Served]:
    with served(pipeline, ("popular:20", "item-knn:10")) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with launched(tmp_path_factory.mktemp("profile")) as found:
        yield found


class Shown:
    """The page, what it said and what it asked for."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.errors.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, fragment: str = "") -> None:
        self.page.goto(f"{self.url}/{fragment}")
        self.page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)

    def settle(self) -> None:
        self.page.wait_for_selector("#ranked:not([aria-busy]) li", timeout=60_000)

    def ranked(self) -> list[str]:
        return [str(one.get_attribute("data-item")) for one in self.page.query_selector_all("#ranked button")]


@contextmanager
def shown(browser: Any, server: Served, **settings: Any) -> Iterator[Shown]:
    with listening(server) as url:
        context = browser.new_context(**settings)
        made = Shown(context.new_page(), url)
        yield made
        context.close()
        assert all(request.startswith((f"{url}/", "blob:")) for request in made.requests)


def test_a_user_of_the_log_is_found_read_block_by_block_and_ranked_for(browser: Any, server: Served) -> None:
    with shown(browser, server) as view:
        view.open()
        view.page.fill("#user-words", "u07")
        view.page.wait_for_selector("#users li:only-child")
        view.page.click("#users button")
        view.settle()
        answer = server.post("/v1/recommend", {"user_id": "u07", "explain": True})
        assert view.ranked() == [row["item_id"] for row in answer["items"]]
        quotes = [one.inner_text() for one in view.page.query_selector_all("#blocks blockquote")]
        assert quotes == [step["summary"] for step in answer["steps"]]
        first = view.page.inner_text("#ranked li:first-child")
        assert f"{answer['items'][0]['score']:.3f}".lstrip("0") in first
        assert "popular" in first
        loaded = "[...document.images].filter((one) => one.complete && one.naturalWidth).length"
        assert view.page.evaluate(loaded) >= len(answer["steps"])
        view.page.select_option("#retriever", "item-knn:10")
        view.page.wait_for_selector("#ranked .from:text('item-knn')")
        assert "u07" in view.page.url
        assert view.errors == []


def test_a_history_is_composed_by_clicks_and_has_an_address(browser: Any, server: Served) -> None:
    with shown(browser, server) as view:
        view.open()
        for place in (1, 3, 5, 2):
            view.page.click(f"#items li:nth-child({place}) button")
        view.page.wait_for_selector("#blocks li:nth-child(2) blockquote")
        view.settle()
        chosen = [server.get("/v1/items", limit=5)["items"][place - 1]["item_id"] for place in (1, 3, 5, 2)]
        answer = server.post("/v1/recommend", {"history": chosen})
        assert view.ranked() == [row["item_id"] for row in answer["items"]]
        address = view.page.url
        view.page.click("#ranked li:first-child button")  # what was recommended is chosen: it joins the history
        view.page.wait_for_selector("#blocks li:nth-child(2) .taken li:nth-child(2)")
        view.page.goto("about:blank")
        view.open(address.removeprefix(view.url).lstrip("/"))
        view.settle()
        assert view.ranked() == [row["item_id"] for row in answer["items"]]
        view.page.click("#blocks .remove >> nth=3")
        view.page.wait_for_selector("#blocks:not([aria-busy]) > li:only-child")
        view.page.click("#clear")
        view.page.wait_for_selector("#history-empty:visible")
        assert view.ranked() == []
        assert view.errors == []


def test_the_page_works_by_keyboard_alone(browser: Any, server: Served) -> None:
    with shown(browser, server) as view:
        view.open()
        view.page.keyboard.press("/")
        view.page.keyboard.type("winter")
        view.page.wait_for_timeout(400)
        view.page.keyboard.press("ArrowDown")
        view.page.keyboard.press("ArrowRight")
        view.page.keyboard.press("Enter")
        view.settle()
        assert view.page.evaluate("document.querySelectorAll('#blocks .taken li').length") == 1
        ring = "getComputedStyle(document.activeElement).outlineStyle"
        assert view.page.evaluate(ring) == "solid"
        view.page.focus(".remove")
        view.page.keyboard.press("Space")
        view.page.wait_for_selector("#history-empty:visible")
        assert view.page.evaluate("document.activeElement.id") == "item-words"  # focus is not lost with its button


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_its_text_can_be_read(browser: Any, server: Served, scheme: str) -> None:
    with shown(browser, server, color_scheme=scheme, **PHONE) as view:
        view.open("#user=u07&history=i03")
        view.settle()
        assert view.page.evaluate("document.documentElement.scrollWidth") == 390
        assert view.page.evaluate(FAINT) == []
        assert view.page.evaluate(UNNAMED) == []
        assert view.errors == []


def test_a_token_is_asked_for_and_titles_of_strangers_stay_text(browser: Any, pipeline: Any) -> None:
    with served(pipeline, token=TOKEN) as server:
        items = server.run.items
        items.titles = items.titles.set(items.ids == items.ids[0], "<img src=x onerror=alert(1)>")
        with shown(browser, server) as view:
            view.page.goto(view.url)
            view.page.wait_for_selector("#token-form:visible")
            view.page.fill("#token", TOKEN)
            view.page.keyboard.press("Enter")
            view.page.wait_for_selector("html[data-ready]", state="attached")
            assert not view.page.is_visible("#token-form")
            view.page.fill("#item-words", str(items.ids[0]))
            view.page.wait_for_selector("#items li:only-child")
            assert "<img src=x" in view.page.inner_text("#items")
            view.page.click("#items button")
            view.settle()
            view.page.wait_for_selector("#ranked img[src^='blob:']")
            assert not [one for one in view.requests if TOKEN in one]


def test_the_pages_allow_nothing_from_elsewhere(server: Served) -> None:
    for path in ("/", "/docs", "/assets/page.js", "/assets/page.css", "/favicon.ico"):
        response = server.client.get(path)
        assert response.status_code == 200
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        told = response.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in told
        assert "https://" not in told


def test_the_page_is_in_the_package() -> None:
    from msr_adapter.files import bundled

    folder = Path(bundled("templates"), "serve")
    assert sorted(path.name for path in folder.iterdir()) == ["icon.svg", "page.css", "page.html", "page.js"]
