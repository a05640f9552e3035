"""`msr recommend` of a log with events: histories say what was done, and lack what their users have come to reject."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.recommending import Asked, items_of, order, own_run, trained, write

ITEMS = "abcdefghijklmnopqrst"
START, DAY = 1_700_000_000, 86_400
YAML = """\
name: scripted
data:
  source:
    kind: table
    interactions: log.csv
    items: items.csv
    events:
      column: event
      positive: [purchase]
      history: [view]
      negative: [remove]
      words: {view: viewed, purchase: bought}
split: {fractions: [0.5, 0.2, 0.3]}
summarize:
  items: {model: &model {path: nobody, backend: scripted}}
  users: {model: *model, mode: direct}
train: {model: *model}
evaluate: {protocol: {name: mine, negatives: 3}, baselines: [popularity]}
templates: templates
"""
TEMPLATE = "Chosen:{% for item in items %} {{ item.event }} {{ item.title }},{% endfor %}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("shop")
    log: list[tuple[object, ...]] = []
    for user in range(12):
        words = ["view", "purchase", "view", "purchase", "remove"]
        places = [0, 1, 2, 3, 2]  # the third is taken out again
        log += [(f"u{user}", ITEMS[(3 * user + place) % 20], START + DAY * (10 * user + number), word)
                for number, (place, word) in enumerate(zip(places, words, strict=True))]  # fmt: skip
    write(folder / "log.csv", ("user_id", "item_id", "timestamp", "event"), log)
    write(folder / "items.csv", ("item_id", "title"), [(item, f"Title {item}") for item in ITEMS])
    (folder / "templates").mkdir()
    (folder / "templates" / "user_summary.j2").write_text(TEMPLATE)
    (folder / "scripted.yaml").write_text(YAML)
    with trained(folder):
        yield folder


def test_histories_say_what_was_done_and_lack_what_is_rejected(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_run(finished, tmp_path)
    asked = Asked(monkeypatch)
    new = [("u0", "k", START + DAY * 900, "view"), ("u0", "b", START + DAY * 901, "remove")]
    later = write(folder / "later.csv", ("user_id", "item_id", "timestamp", "event"), new)
    who = write(folder / "who.csv", ["user_id"], [["u0"], ["u1"]])
    order(folder, interactions=later, users=who, candidates="all", top=20)
    read = {request.prompt for request in asked.texts if request.prompt.startswith("Chosen:")}
    assert read == {
        "Chosen: viewed Title a, bought Title d, viewed Title k,",  # b was bought, and is rejected now
        "Chosen: viewed Title d, bought Title e, bought Title g,",
    }
    assert not {"a", "b", "c", "d", "k"} & set(items_of(folder, "u0"))
    assert not {"d", "e", "f", "g"} & set(items_of(folder, "u1"))
