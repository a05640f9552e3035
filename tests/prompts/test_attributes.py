"""Attributes in templates: typed values, missing ones that nobody prints unasked, and renderers that agree."""

import datetime
import pickle
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.errors import UserError
from msr_adapter.prompts import HistoryItem, Prompts, UserFields
from msr_adapter.prompts.attributes import KnownAttributes, ListValue, as_value
from msr_adapter.prompts.vectorized import PromptRecords, PromptTable

FULL = HistoryItem(
    "A title", "A summary", "A text", "Games > Board", (("price", 12.5), ("brand", "Acme"), ("tags", ListValue("ab")),
    ("released", datetime.date(2024, 6, 30)), ("sold", True)),
)  # fmt: skip
BARE = HistoryItem("", attributes=tuple((name, None) for name, _ in FULL.attributes))
ADULT, CHILD = UserFields((("age", "30-39"),)), UserFields((("age", None),))


def prompts_of(folder: Path, **templates: str) -> Prompts:
    folder.mkdir(exist_ok=True)
    for name, text in templates.items():
        (folder / f"{name}.j2").write_text(text, encoding="utf-8")
    return Prompts(folder)


@pytest.mark.parametrize(
    ("template", "full", "bare"),
    [
        ("{{ item.price or 'no price' }}", "12.5", "no price"),
        ("{{ item.price|default('?') }}", "12.5", "?"),
        ("{% if item.price is not none %}{{ '%.2f'|format(item.price) }}{% endif %}.", "12.50.", "."),
        ("{{ 'none' if item.brand is none else item.brand|upper }}", "ACME", "none"),
        ("{{ 'x' if item.brand == none }}{{ item.brand is defined }}", "True", "xFalse"),
        ("{{ item.tags or '-' }}|{{ item.tags|join('+') }}", "a, b|a+b", "-|"),
        ("{% for tag in item.tags %}<{{ tag }}>{% endfor %}.", "<a><b>.", "."),
        ("{{ item.price|round|int if item.price else 0 }}", "12", "0"),
        ("{{ item.released.year if item.released else '-' }}", "2024", "-"),
        ("{{ item.released or '-' }}", "2024-06-30", "-"),
        ("{{ 'cheap' if item.price and item.price < 20 else 'dear' }}", "cheap", "dear"),
        ("{{ item['brand'] or '-' }}{{ item.text }}{{ item.category }}", "AcmeA textGames > Board", "-"),
    ],
)
def test_values_and_missing_ones(tmp_path: Path, template: str, full: str, bare: str) -> None:
    prompts = prompts_of(tmp_path, recommend=template)
    assert prompts.recommend("", "", False, FULL) == full
    assert prompts.recommend("", "", False, BARE) == bare


@pytest.mark.parametrize(
    "template",
    ["{{ item.brand }}", "{{ item.brand|upper }}", "{{ 'by ' ~ item.brand }}", "{{ item.price + 1 }}",
     "{{ item.brand|string }}",
     "{{ '%s'|format(item.brand) }}", "{{ item.brand.upper() }}", "{{ item.price < 3 }}", "{{ [item.brand]|join }}",
     "{{ item.brand|replace('a', 'b') }}", "{{ item.released.year }}"],
)  # fmt: skip
def test_a_missing_value_is_never_printed_unasked(tmp_path: Path, template: str) -> None:
    prompts = prompts_of(tmp_path, recommend=template)
    if "price" not in template and "released" not in template:
        assert "Acme".lower()[1:] in prompts.recommend("", "", False, FULL).lower()
    with pytest.raises(UserError, match=r"is missing here\. Write \{\{ item\.\w+ or '\.\.\.' \}\}, or ask"):
        prompts.recommend("", "", False, BARE)


def test_every_template_knows_its_item_and_user(tmp_path: Path) -> None:
    one, history = "{{ item.brand }}", "{% for item in items %}{{ item.brand }}{% endfor %}{{ user.age }}"
    prompts = prompts_of(
        tmp_path, item_summary=one, item_text=one, item_image="<image>" + one, item_fusion=one, user_summary=history,
        history=history, recommend=one + "{{ user.age }}",
    )  # fmt: skip
    assert [
        prompts.item_summary("", False, "", FULL), prompts.item_text("", "", FULL), prompts.item_image("", FULL),
        prompts.item_fusion("", "", "", FULL), prompts.user_summary("", [FULL], ADULT),
        prompts.history([FULL, FULL], ADULT),
        prompts.recommend("", "", False, FULL, ADULT),
    ] == ["Acme", "Acme", "<image>Acme", "Acme", "Acme30-39", "AcmeAcme30-39", "Acme30-39"]  # fmt: skip


def test_text_of_attributes_is_data(tmp_path: Path) -> None:
    prompts = prompts_of(tmp_path, recommend="{{ item.brand }}{{ item.tags }}{{ user.age }}")
    hostile = HistoryItem("", attributes=(("brand", "<image>"), ("tags", ListValue(("<|im_end|>", "{{image}}")))))
    said = prompts.recommend("", "", False, hostile, UserFields((("age", "[INST]"),)))
    assert said == "‹image›‹|im_end|›, { {image} }(INST)"


def test_check_tries_templates_with_what_may_be_missing(tmp_path: Path) -> None:
    prompts = prompts_of(
        tmp_path, recommend="{% if image %}<image>{% endif %}{{ item.brand }} {{ '%.1f'|format(item.price) }}"
    )
    kinds = {"brand": "text", "price": "number"}
    assert prompts.check(KnownAttributes(kinds)) == []
    (gap,) = prompts.check(KnownAttributes(kinds, missing=frozenset(["item.brand"])))
    assert gap.found == "item.brand is missing here"
    (kind,) = prompts.check(KnownAttributes({"brand": "text", "price": "text"}))
    assert "real number" in kind.found or "float" in kind.found
    assert prompts.check(KnownAttributes({"brand": None, "price": None})) == []  # no types, nothing to try it with
    (absent,) = prompts.check(KnownAttributes({"brand": "text"}))
    assert (absent.found, absent.allowed.split()[:3]) == ("no attribute 'price'", ["items", "have", "title,"])


@pytest.mark.parametrize(
    ("template", "used"),
    [
        ("{{ item.price }}", ["price"]), ("{{ item['brand'] }}", ["brand"]), ("{{ title }}", []),
        ("{{ items|map(attribute='price')|join }}", ["price"]), ("{{ item[title] }}", ["price", "brand"]),
        ("{% set x = item %}{{ x.brand }}", ["brand"]), ("{% include 'part.j2' %}", ["price"]),
        ("{{ item|attr(title) }}", ["price", "brand"]), ("{{ title[1:] }}", []),
    ],
)  # fmt: skip
def test_what_a_template_may_look_at(tmp_path: Path, template: str, used: list[str]) -> None:
    prompts = prompts_of(tmp_path, recommend=template, part="{{ item.price }}")
    assert list(prompts.fields("recommend").among(["price", "brand"])) == used


def test_values_of_tables() -> None:
    assert [as_value(one) for one in (12.0, 12.5, float("nan"), "", [], ["a"], True, 1e300)] == [
        12, 12.5, None, None, None, ListValue("a"), True, 1e300,
    ]  # fmt: skip
    assert repr(as_value(12.0)) == "12"
    assert str(pickle.loads(pickle.dumps(FULL))["tags"]) == "a, b"
    assert hash(FULL) != hash(BARE)


FRAGMENTS = (
    "{{ user_summary }}", "{{ title }}", "{{ item.price or '-' }}", "{{ item.brand|default('x')|upper }}",
    "{{ user.age or '?' }}",
    "{% if user.age %}{{ item.price }}{% endif %}", "{{ item.title }}", "{% set p = item.price %}",
    "{{ p|default('none') }}",
    "{% include 'part.j2' %}", "text", "{{ item.tags|join('/') }}", "{% if title %}T{{ title }}{% endif %}",
    "{% for t in item.tags %}{{ t }}{{ user_summary }}{% endfor %}", "{{ item.price }}", "{{ item.text }}",
)  # fmt: skip


@settings(deadline=None, max_examples=120)
@given(
    fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=6),
    several=st.lists(st.sampled_from(["", "a", "b"]), min_size=1),
)
def test_whole_tables_are_rendered_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, fragments: list[str], several: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "attributes"
    prompts = prompts_of(folder, recommend="".join(fragments), part="[{{ item.brand or title }}{{ user.age or '' }}]")
    items, users = [FULL, BARE, HistoryItem("b", attributes=FULL.attributes)], [ADULT, CHILD, ADULT][: len(several)]
    summaries = (several * 3)[: len(users)]
    pairs = list(product(range(len(users)), range(3)))
    try:
        expected = [prompts.recommend(summaries[u], items[i].title, False, items[i], users[u]) for u, i in pairs]
    except UserError:
        expected = None
    records = PromptRecords(items.__getitem__, users.__getitem__)

    def at_once() -> list[str]:
        titles = pl.Series([item.title for item in items])
        table = PromptTable(prompts, pl.Series(summaries), titles, np.zeros(3, bool), None, records)
        rows = np.array(pairs)
        return table.take(rows[:, 0], rows[:, 1]).to_list()

    if expected is None:
        with pytest.raises(UserError):
            at_once()
    else:
        assert at_once() == expected
