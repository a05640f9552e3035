"""A run whose templates say attributes: what a changed column makes anew, and what it leaves alone."""

import json
from pathlib import Path

import pytest

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import UserError
from msr_adapter.pipeline import check, plan, run
from msr_adapter.progress import Reporter
from tests.support.data_builders import write_csv
from tests.support.scripted_pipeline import pretend_to_train_stages

YAML = """\
name: shop
data:
  source: {kind: table, interactions: log.csv, items: items.csv}
  items: {attributes: [price, brand]}
  users: {path: users.csv, attributes: [age]}
split: {fractions: [0.5, 0.2, 0.3]}
summarize:
  items: {model: &model {path: nobody, backend: scripted}}
  users: {model: *model}
train: {model: *model}
evaluate: {protocol: next-item, baselines: [popularity]}
templates: templates
"""
BRAND = "{% if image %}<image>{% endif %}{{ title }} by {{ item.brand }}"
PRICE = "{{ user_summary }} {% if image %}<image>{% endif %}{{ title }} for {{ item.price }}"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pretend_to_train_stages(monkeypatch)
    # The last of each user, the target, is in no history.
    rows = [(f"u{u:02}", f"i{(u * 7 + k * 3) % 40 if k < 4 else 40 + u:02}", 100 * u + k)
            for u in range(30) for k in range(5)]  # fmt: skip
    write_csv(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], rows)
    write_items(tmp_path)
    write_csv(tmp_path / "users.csv", ["user_id", "age"], [(f"u{u:02}", 20 + u) for u in range(30)])
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "item_summary.j2").write_text(BRAND)
    (tmp_path / "templates" / "recommend.j2").write_text(PRICE)
    (tmp_path / "shop.yaml").write_text(YAML)
    return tmp_path


def write_items(folder: Path, price: int = 1, brand: str = "Acme", other: str = "o", without: int = 0) -> None:
    rows = [(f"i{i:02}", f"Title {i}", "" if i < without else price + i, brand, other) for i in range(70)]
    write_csv(folder / "items.csv", ["item_id", "title", "price", "brand", "other"], rows)


def load(folder: Path) -> LoadedPipeline:
    return load_pipeline(str(folder / "shop.yaml"), run_dir=folder / "run")


def changed(folder: Path) -> set[str]:
    """Run again and return the stages that were made anew."""
    made = run(load(folder), ("evaluate",), reporter=Reporter(quiet=True))
    return {stage.name for stage in made.stages if stage.state == "done"}


AFTER_THE_PRICE = {"data", "lengths", "dataset", "train", "score"}


def test_a_column_makes_anew_what_says_it_and_no_other_stage(shop: Path) -> None:
    assert {"items", "users", "score"} <= changed(shop)
    assert changed(shop) == set()
    write_items(shop, other="changed")
    assert changed(shop) == {"data"}
    write_csv(shop / "users.csv", ["user_id", "age"], [("u01", 99)])  # no template says it
    assert changed(shop) == {"data"}
    write_items(shop, price=100)
    assert AFTER_THE_PRICE <= changed(shop) <= {*AFTER_THE_PRICE, "evaluate"}
    write_items(shop, price=100, brand="Zeta")
    again = changed(shop)
    assert "items" in again
    assert "lengths" not in again
    rows = json.loads((shop / "run" / "data" / "attributes.json").read_text())
    assert rows["attributes"]["item"]["brand"]["example"] == "Zeta"


def test_users_that_the_template_says_count_too(shop: Path) -> None:
    (shop / "templates" / "user_summary.j2").write_text(
        "{% for item in items %}{{ item.title }}{% endfor %} {{ user.age }}"
    )
    changed(shop)
    write_csv(shop / "users.csv", ["user_id", "age"], [(f"u{u:02}", 50 + u) for u in range(30)])
    again = changed(shop)
    assert "users" in again
    assert not {"items", "lengths"} & again


def test_the_summary_of_a_candidate_has_every_item_described(shop: Path) -> None:
    changed(shop)
    before = json.loads((shop / "run" / "items" / "manifest.json").read_text())["summary"]["items_in_histories"]
    (shop / "templates" / "recommend.j2").write_text(
        "{% if image %}<image>{% endif %}About: {{ item.summary }} {{ user_summary }}"
    )
    assert {"items", "dataset", "score"} <= changed(shop)
    made = json.loads((shop / "run" / "items" / "manifest.json").read_text())["summary"]
    assert before < made["items_in_histories"] == made["items"]


def test_a_gap_that_no_template_foresees_is_told_before_any_model_is_asked(shop: Path) -> None:
    write_items(shop, without=3)
    assert check(load(shop)) == []  # types and gaps are known once the files are read
    with pytest.raises(UserError, match=r"recommend.j2:1: item.price is missing here. Write"):
        changed(shop)
    assert plan(load(shop))["items"] != "up to date"
    (shop / "templates" / "recommend.j2").write_text(PRICE.replace("item.price", "item.price or 'an unknown price'"))
    assert "score" in changed(shop)
