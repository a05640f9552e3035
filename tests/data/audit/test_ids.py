"""What the audit says of ids, and that it merges none: users and items are counted as they are written."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.sources import read
from msr_adapter.data.source_look import look_through
from msr_adapter.errors import UserError
from tests.support.data_builders import Row, build_in, random_rows, table_data

E_ACUTE, E_AND_ACCENT = "caf\u00e9", "cafe\u0301"


def findings(folder: Path, rows: list[Row], titles: dict[str, str] | None = None) -> tuple[dict[str, str], Any]:
    """Return topic -> text of the findings on ids, and the audit."""
    audit = build_in(folder, table_data(folder, rows, titles)).audit
    topics = ("id-forms", "id-codes", "null-ids", "lossy-ids", "near-ids")
    return {one["topic"]: one["text"] for one in audit["findings"] if one["topic"] in topics}, audit


def renamed(rows: list[Row], users: dict[str, str], items: dict[str, str]) -> list[Row]:
    return [(users.get(u, u), items.get(i, i), t) for u, i, t in rows]


def test_an_ordinary_log_has_no_finding_on_ids(tmp_path: Path) -> None:
    assert findings(tmp_path, random_rows(12, 12, 6))[0] == {}


def test_one_user_in_two_forms_counts_as_two_and_is_told(tmp_path: Path) -> None:
    rows = random_rows(12, 12, 6)
    mixed = [(str(int(u[1:]) + 1) + (".0" if n % 2 else ""), i, t) for n, (u, i, t) in enumerate(rows)]
    found, audit = findings(tmp_path, mixed)
    assert list(found) == ["id-forms"]
    assert found["id-forms"].startswith(
        "12 of 24 users differ from another only in form ('1.0' and '1', '10.0' and '10', '11.0' and '11') and count "
        "separately: nothing is merged. If they are the same: "
    )
    assert audit["counts"]["users_read"] == 24
    assert audit["counts"]["users_in_another_form"] == 12
    assert audit["named"]["users_in_another_form"][:2] == ["1.0", "10.0"]


@pytest.mark.parametrize("word", ["nan", "None", "NULL", "\\N", "NA", "<NA>", "NaN", "null", "N/A", "undefined"])
def test_a_user_called_by_a_word_for_nothing_is_told_with_its_rows(tmp_path: Path, word: str) -> None:
    found, audit = findings(tmp_path, renamed(random_rows(12, 12, 6), {"u003": word}, {}))
    assert list(found) == ["null-ids"]
    assert found["null-ids"].startswith(f"6 interactions have the user {word!r}, which programs write")
    assert audit["counts"]["users_named_by_a_null_word"] == 1
    assert audit["counts"]["users_read"] == 12


def test_an_item_called_by_a_word_for_nothing_is_told(tmp_path: Path) -> None:
    found, _ = findings(tmp_path, renamed(random_rows(12, 12, 6), {}, {"i003": "nan", "i004": "NULL"}))
    assert "have the item 'nan', 'NULL'," in found["null-ids"] or "have the item 'NULL', 'nan'," in found["null-ids"]


def test_codes_that_differ_in_case_are_worth_knowing_many_are_a_warning(tmp_path: Path) -> None:
    few, _ = findings(tmp_path / "a", renamed(random_rows(12, 120, 60), {}, {"i003": "I004", "i009": "004"}))
    assert "'I004' and 'i004'" in few["id-codes"] or "'i004' and 'I004'" in few["id-codes"]
    _, audit = findings(tmp_path / "b", renamed(random_rows(12, 12, 6), {f"u00{n}": f"U00{n + 1}" for n in (0, 2)}, {}))
    assert [one["severity"] for one in audit["findings"] if one["topic"] == "id-codes"] == ["warning"]


def test_numbers_that_a_spreadsheet_rounded(tmp_path: Path) -> None:
    users = {f"u{n:03}": f"1.2345{n:02}E+17" for n in range(12)}
    found, audit = findings(tmp_path, renamed(random_rows(12, 12, 6), users, {}))
    assert found["lossy-ids"].startswith("12 of the users are numbers that lost digits on the way ('1.234500E+17', ")
    assert audit["counts"]["users_rounded"] == 12


def test_items_that_the_table_has_in_another_form_are_dropped_and_told(tmp_path: Path) -> None:
    titles = {f"i{n:03}": "title" for n in range(12)} | {E_ACUTE: "Coffee", "7": "Seven", "u1": "One"}
    del titles["i001"], titles["i002"], titles["i003"]
    rows = renamed(random_rows(12, 12, 8), {}, {"i001": E_AND_ACCENT, "i002": "007", "i003": "7.0"})
    found, audit = findings(tmp_path, rows, titles)
    text = found["near-ids"]
    assert "3 of them appear in another form" in text
    assert "in the table" in text
    assert "'007' and '7', '7.0' and '7', 'cafe\u0301' (cafe\\u0301) and 'caf\u00e9' (caf\\xe9)" in text
    assert audit["counts"]["items_unknown_but_for_their_form"] == 3
    assert audit["counts"]["items_dropped_unknown_item"] == 3


def test_a_table_of_which_no_id_fits_is_refused_with_the_form_that_would(tmp_path: Path) -> None:
    rows = [(u, f"{int(i[1:])}.0", t) for u, i, t in random_rows(12, 12, 6)]
    with pytest.raises(UserError) as caught:
        findings(tmp_path, rows, {str(n): "title" for n in range(12)})
    (problem,) = caught.value.problems
    assert problem.next_step.startswith("12 of them appear in another form ('0.0' and '0', '1.0' and '1', ")


def test_ids_of_the_table_in_two_forms_are_told(tmp_path: Path) -> None:
    titles = {f"i{n:03}": "title" for n in range(12)} | {"x 1": "a", "x\u00a01": "b"}
    found, audit = findings(tmp_path, random_rows(12, 12, 6), titles)
    assert found["id-forms"].startswith("1 of 14 items of the table differs from another only in form")
    assert audit["counts"]["items_of_the_table_in_another_form"] == 1


def test_typed_columns_that_once_had_gaps_are_whole_numbers_on_both_sides(tmp_path: Path) -> None:
    rows = random_rows(12, 12, 6)
    log = pl.DataFrame({"user": [float(u[1:]) for u, _, _ in rows], "item": [int(i[1:]) for _, i, _ in rows],
                        "timestamp": [t for _, _, t in rows]})  # fmt: skip
    log.write_parquet(tmp_path / "log.parquet")
    data = table_data(tmp_path, rows)
    data = data.model_copy(update={"source": data.source.model_copy(update={"interactions": tmp_path / "log.parquet"})})
    users = read(data.source, 0, Audit()).interactions.collect()["user_id"].unique().sort()
    assert users.to_list() == sorted(str(n) for n in range(12))


def test_check_says_it_before_anything_is_built(tmp_path: Path) -> None:
    rows = random_rows(12, 12, 6)
    users = (
        {f"u{n:03}": f"{n + 1}" for n in range(6)} | {f"u{n:03}": f"{n - 5}.0" for n in range(6, 11)} | {"u011": "nan"}
    )
    titles = {f"i{n:03}": "title" for n in range(1, 12)} | {E_ACUTE: "Coffee"}
    look = look_through(table_data(tmp_path, renamed(rows, users, {"i000": E_AND_ACCENT}), titles), SplitConfig())
    assert look.problems == []
    found = {one["topic"]: one["text"] for one in look.findings}
    assert found["id-forms"].startswith("5 of 12 users differ from another only in form ('1.0' and '1', ")
    assert found["null-ids"].startswith("6 interactions have the user 'nan', ")
    assert found["near-ids"].startswith("The table of items lacks 1 item of the log. 1 of them appears in another form")
    assert any("'1.0' and '1'" in line for line in look.lines)
