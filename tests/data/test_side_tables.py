"""Files beside the sources are read as every other table is: id lists, scores of hard negatives, candidate lists."""

from pathlib import Path

import pytest

from msr_adapter.data.audit.report import Audit
from msr_adapter.data.id_list_files import read_item_ids, read_user_ids
from msr_adapter.data.negatives.candidate_files import read_lists
from msr_adapter.data.negatives.scored_items import read_scores
from msr_adapter.errors import UserError
from tests.support.reader_fixtures import put

STRAY = ['"Great lamp', "fine", "fine", 'as wide as 12"']
ESCAPED = [r'"19\" disk"', '"fine"', '"a, b"', r'"\"x\""']
OPEN = ['"City, The"', '"opens', "fine", "fine"]


def told(audit: Audit) -> str:
    return " ".join(finding["text"] for finding in audit.findings)


@pytest.mark.parametrize(("notes", "said"), [(STRAY, "(quote: none)"), (ESCAPED, "escape: backslash")])
def test_ids_beside_odd_marks(tmp_path: Path, notes: list[str], said: str) -> None:
    users = put(tmp_path / "users.csv", "user,note\n" + "".join(f"u{n},{text}\n" for n, text in enumerate(notes)))
    audit = Audit()
    assert read_user_ids(users, "--users", audit).to_list() == ["u0", "u1", "u2", "u3"]
    assert said in told(audit)
    items = put(tmp_path / "items.tsv", "item\tnote\n" + "".join(f"i{n}\t{text}\n" for n, text in enumerate(notes)))
    assert read_item_ids(items, "--candidates").height == 4


@pytest.mark.parametrize(("notes", "said"), [(STRAY, "(quote: none)"), (ESCAPED, "escape: backslash")])
def test_scores_beside_odd_marks(tmp_path: Path, notes: list[str], said: str) -> None:
    rows = "".join(f"u{n},i{n},{text},0.{n + 1}\n" for n, text in enumerate(notes))
    audit = Audit()
    frame = read_scores(put(tmp_path / "scores.csv", "user_id,item_id,note,score\n" + rows), audit)
    assert frame.select("item_id", "score").rows() == [("i0", 0.1), ("i1", 0.2), ("i2", 0.3), ("i3", 0.4)]
    assert said in told(audit)


@pytest.mark.parametrize("notes", [STRAY, ESCAPED])
def test_candidate_lists_beside_odd_marks(tmp_path: Path, notes: list[str]) -> None:
    rows = "".join(f"u1,i{n},{int(n == 0)},{text}\n" for n, text in enumerate(notes))
    lists = read_lists(put(tmp_path / "lists.csv", "user_id,item_id,label,note\n" + rows))
    assert lists["item_id"].to_list() == ["i0", "i1", "i2", "i3"]


def test_what_is_open_is_refused_without_keys_that_do_not_exist(tmp_path: Path) -> None:
    table = "user_id,item_id,label,score,note\n" + "".join(f"u1,i{n},0,1,{text}\n" for n, text in enumerate(OPEN))
    path = put(tmp_path / "file.csv", table)
    for read_ in (lambda: read_user_ids(path, "--users"), lambda: read_scores(path), lambda: read_lists(path)):
        with pytest.raises(UserError, match=r"file.csv:3.*a quotation mark that opens.*Correct the line") as caught:
            read_()
        assert "data.source" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"user_id,item_id,label,score\nu1,i1,0,1\nu1,i1,0,1,2\n", "file.csv:3.*5 columns; 4, as in the header"),
        (b"user_id,item_id,label,score\nu1,i\xff,0,1\n", "file.csv:2.*byte 0xff at column 5 is not UTF-8"),
    ],
)
def test_what_is_broken_is_named_by_line(tmp_path: Path, content: bytes, found: str) -> None:
    path = put(tmp_path / "file.csv", "")
    path.write_bytes(content)
    for read_ in (lambda: read_item_ids(path, "--candidates"), lambda: read_scores(path), lambda: read_lists(path)):
        with pytest.raises(UserError, match=found):
            read_()
