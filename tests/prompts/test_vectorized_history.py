"""Listed histories of whole tables: whatever the template, each is what the single renderer says."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.errors import UserError
from msr_adapter.prompts import HistoryItem, Prompts, Wording
from msr_adapter.prompts import vectorized_history as module
from msr_adapter.prompts.vectorized_history import ListedEvents, tell_histories

BODIES = (
    "{{ noun }}", "{{ language if loop.first }}",
    "{{ item.title }}", "{{ item.title or '(none)' }}", "{% if item.summary %} ({{ item.summary }}){% endif %}",
    "{% if not loop.last %}; {% endif %}", "{{ loop.index }}. ", "{{ loop.first }}", "{{ loop.index0 * 2 }}", "\n- ",
    "{{ item.title|upper }}", "{{ loop.length }}", "{{ item }}", "{{ loop.previtem.title }}", "{{ items|length }}",
    "{% if item.title == 'a' %}!{% endif %}", "{% set t = item.title %}{{ t }}",
    "{{ item.title ~ '/' ~ item.summary }}", "{{ item.event or 'chosen' }} ", "{% if item.event %}!{% endif %}",
    "{{ item.event }}",
    "{{ loop.cycle('odd', 'even') }}", "{% if item.title and not item.summary %}?{% endif %}", "<ima",
    "ge>", "{{ item['title'] }}", "{{ item.title.x }}", "{{ ', ' if loop.first else '' }}", "{{ item.titel }}",
)  # fmt: skip
AROUND = (
    "",
    "seen: ",
    "{{ noun }} in {{ language }}: ",
    "{{ items|length }} ",
    "{{ items[0].title }}",
    "\n",
    "{% if items %}x{% endif %}",
    "{# no #}",
    "<image>",
)
OVER = (
    "{% for item in items %}", "{% for item in items -%}\n", "{% for item in items if item.title %}",
    "{% for item in items|reverse %}", "{% for item in items[:2] %}",
)  # fmt: skip

texts = st.one_of(
    st.sampled_from(["", "a", "<image>", "ge>", "\x00title\x00", "\x02\x03", "é\n日本 {{ 1 }}"]), st.text(max_size=9)
)
items = st.lists(st.builds(HistoryItem, texts, texts, event=texts), min_size=1, max_size=5)


def prompts_of(folder: Path, template: str) -> Prompts:
    folder.mkdir(exist_ok=True)
    (folder / "history.j2").write_text(template, encoding="utf-8")
    return Prompts(folder, Wording("film", "Thai"))


def at_once(prompts: Prompts, known: list[HistoryItem], histories: list[list[int]]) -> list[str]:
    columns = (pl.Series([getattr(item, name) for item in known], dtype=pl.String) for name in ("title", "summary"))
    flat = np.array([item for history in histories for item in history], dtype=np.int64)
    lengths = np.array([len(h) for h in histories], dtype=np.int64)
    events = ListedEvents([item.event for item in known], flat)
    return tell_histories(prompts, *columns, flat, lengths, events).to_list()


@settings(deadline=None, max_examples=40)
@given(known=items, data=st.data(), bodies=st.lists(st.sampled_from(BODIES), max_size=4), over=st.sampled_from(OVER))
def test_any_template_gives_the_texts_of_the_single_renderer(
    tmp_path_factory: pytest.TempPathFactory,
    known: list[HistoryItem],
    data: st.DataObject,
    bodies: list[str],
    over: str,
) -> None:
    head, tail = (data.draw(st.sampled_from(AROUND)) for _ in range(2))
    prompts = prompts_of(
        tmp_path_factory.getbasetemp() / "histories", f"{head}{over}{''.join(bodies)}{{%- endfor %}}{tail}"
    )
    histories = data.draw(st.lists(st.lists(st.integers(0, len(known) - 1), max_size=4), max_size=5))
    try:
        expected = [prompts.history([known[i] for i in history]) if history else "" for history in histories]
    except UserError:
        with pytest.raises(UserError):
            at_once(prompts, known, histories)
    else:
        assert at_once(prompts, known, histories) == expected


@settings(deadline=None, max_examples=40)
@given(known=items, data=st.data())
def test_the_bundled_template(known: list[HistoryItem], data: st.DataObject) -> None:
    histories = data.draw(st.lists(st.lists(st.integers(0, len(known) - 1), max_size=12), max_size=5))
    expected = [Prompts().history([known[i] for i in history]) if history else "" for history in histories]
    assert at_once(Prompts(), known, histories) == expected


@pytest.mark.parametrize(
    ("template", "fast"),
    [
        ("a {% for item in items %}{{ item.title }}{{ ', ' if not loop.last else '' }}{% endfor %} b", True),
        (
            "{% for i in items %}{{ loop.index }} {% if i.summary %}{{ i.title or i.summary }}{% endif %}{% endfor %}",
            True,
        ),
        ("{% for item in items %}{{ item.event or 'chose' }} {{ item.title }}{% endfor %}", True),
        ("{% for item in items %}{{ item.title|upper }}{% endfor %}", False),
        ("{% for item in items %}{{ loop.length }}{% endfor %}", False),
        ("{% for item in items %}{{ items[0].title }}{% endfor %}", False),
        ("{{ items|length }}{% for item in items %}{{ item.title }}{% endfor %}", False),
    ],
)
def test_which_loops_are_told_at_once(tmp_path: Path, template: str, fast: bool) -> None:
    assert (module._find_loop(prompts_of(tmp_path, template), 5) is not None) == fast


def test_the_number_of_renderings_does_not_grow_with_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(Prompts, "history", lambda *values: calls.append(values))
    known = [HistoryItem(f"t{n}", "s" * (n % 2)) for n in range(50)]
    texts = at_once(Prompts(), known, [[(n + k) % 50 for k in range(10)] for n in range(200)])
    assert len(set(texts)) == 50
    assert not calls
