"""The passes over bytes against parsers: whatever a file holds, they count what `csv` and `json` read."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.text_tables import json_blocks, json_keys, line_counts
from msr_adapter.text_tables.json_scan import scan_json
from msr_adapter.text_tables.line_counts import HowToCount, count_lines

PIECES = ['"a","b"\n', '"', '""', ",", "\n", "a", '"x, y"', '"two\nlines"', '"","a"\r\n', 'a"b', "\\", '\\"', '"",""\n']
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join)
KEYS = st.sampled_from(["user", "item", "a", "event_timestamp", "login_timestamp", 'q"', "b\\", "é", "NaN", ""])
WORDS = st.sampled_from(["x", '": ', "{", '\\"user\\": ', "NaN", "\U0001f600"])
VALUES = st.recursive(
    st.none() | st.integers() | st.booleans() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def in_a_file(content: bytes) -> Path:
    folder = Path(tempfile.mkdtemp())
    (folder / "file").write_bytes(content)
    return folder / "file"


@given(TEXTS)
@settings(max_examples=150)
@pytest.mark.parametrize("size", [7, 2**17])
def test_records_are_counted_as_csv_reads_them(size: int, text: str) -> None:
    path = in_a_file(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_counts, "_CHUNK", size)
        found = count_lines(path, ",", HowToCount(widths=True))
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        assert not found.is_valid
        return
    if not found.is_valid:  # csv takes a mark within a field that does not begin with one
        assert any('"' in line for line in text.splitlines())
        return
    assert found.lines == len(rows)
    assert found.blank == sum(not row for row in rows)
    assert found.separators == sum(max(len(row) - 1, 0) for row in rows)
    width = next((len(row) for row in rows if row), 0)
    assert found.columns == width
    assert found.n_short == sum(0 < len(row) < width for row in rows)


@given(st.lists(st.tuples(st.dictionaries(KEYS, VALUES, max_size=4), st.booleans(), st.sampled_from([",", ", "]))))
@settings(max_examples=150)
@pytest.mark.parametrize("size", [7, 2**17])
def test_keys_are_those_that_json_reads(size: int, objects: list[tuple[dict[str, object], bool, str]]) -> None:
    lines = [json.dumps(one, ensure_ascii=ascii_, separators=(comma, ": ")) for one, ascii_, comma in objects]
    path = in_a_file("".join(line + "\n" for line in lines).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_blocks, "_CHUNK", size)
        found = scan_json(path)
    first: dict[str, int] = {}
    for number, (one, _, _) in enumerate(objects, 1):
        for key in one:
            first.setdefault(key, number)
    assert found.keys == first
    assert (found.lines, found.constants, found.surrogates, found.repeated) == (len(lines), 0, 0, None)


LONG = "a_key_that_is_longer_than_sixteen_bytes"
SHAPES = [{"u": 1, "item": 2}, {"item": 1, "u": 2}, {"u": 1, LONG: 2}, {"u": 1, f"b{LONG}": '": "'}, {LONG: {"u": 3}},
          {"u": 1, LONG[1:]: None}, {"u": "\\"}, {"u": 1, "iten": 2}, {'v"u': 1, "item": 2}, {}]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(range(len(SHAPES))), st.integers(1, 12)), max_size=8), st.booleans())
@settings(max_examples=150)
@pytest.mark.parametrize("size", [7, 60, 2**17])
def test_runs_of_lines_of_one_shape_hide_no_other_key(size: int, runs: list[tuple[int, int]], twice: bool) -> None:
    lines = [json.dumps(SHAPES[shape]) for shape, number in runs for _ in range(number)]
    lines += [lines[-1].replace("{", '{"u": 0, ', 1)] * 2 if twice and lines and ":" in lines[-1] else []
    first: dict[str, int] = {}
    repeated: tuple[str, int] | None = None
    for number, line in enumerate(lines, 1):
        pairs = json.loads(line, object_pairs_hook=lambda found: found)
        names = [name for name, _ in pairs]
        for name in names:
            first.setdefault(name, number)
        repeated = repeated or next(((name, number) for name in names if names.count(name) > 1), None)
    if lines:
        lines.append("17")  # no line end behind it: a block without one
    path = in_a_file("\n".join(lines).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_blocks, "_CHUNK", size)
        found = scan_json(path)
    assert (found.keys, found.repeated, found.lines) == (first, repeated, len(lines))


def test_lines_of_one_shape_are_not_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_a_file(b"".join(b'{"user_id":%d,"item_id":7,"timestamp_of_the_event":%d}\n' % (n, n) for n in range(400)))
    monkeypatch.setattr(json_blocks, "_CHUNK", 1000)
    closely: list[int] = []
    monkeypatch.setattr(json_keys.KeyPlaces, "_only_known", lambda *_: closely.append(1))
    found = scan_json(path)
    assert (list(found.keys), closely) == (["user_id", "item_id", "timestamp_of_the_event"], [])


@pytest.mark.parametrize("at", [0, 1, 7, 40])
def test_a_key_that_stands_twice_is_found_anywhere(at: int) -> None:
    lines = ['{"user": 1, "item": 2, "more": {"user": 3}}'] * 50
    lines[at] = '{"user": 1, "item": 2, "user": 3}'
    found = scan_json(in_a_file("\n".join(lines).encode()))
    assert found.repeated == ("user", at + 1)
    lines = ['{"user": 1, "item": 2}'] * 50
    lines[at] = '{"item": 1, "item": 2}'
    assert scan_json(in_a_file("\n".join(lines).encode())).repeated == ("item", at + 1)


def test_the_block_that_is_quoted_throughout_is_counted_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '"user","item","note"\n' + "".join(f'"u{n}","i{n}","n, {n}"\n' if n == 70 else f'"u{n}","i{n}","x"\n'
                                              for n in range(100))  # fmt: skip
    path = in_a_file(text.encode())
    fast = count_lines(path, ",")
    monkeypatch.setattr(line_counts._Walk, "_add_all_quoted", lambda *_: False)
    assert count_lines(path, ",") == fast
    assert (fast.lines, fast.separators, fast.marks) == (101, 202, 606)
