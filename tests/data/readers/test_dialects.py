"""Quotation marks that are not RFC 4180: read where the file leaves no doubt and told, refused by line otherwise."""

import csv
from pathlib import Path

import pytest

from msr_adapter.config.schema import FileFormatConfig, TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import check_source, read
from msr_adapter.errors import UserError
from tests.support.paths import shared_data

LOG = "user,item,timestamp\n" + "".join(f"u{n % 7},i{n % 30:03},{1_600_000_000 + n}\n" for n in range(60))


def items_of(folder: Path, name: str, text: str, **keys: object) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the items that are read (id, title), and what is said beside."""
    (folder / "log.csv").write_text(LOG)
    (folder / name).write_bytes(text.encode())
    values = {"kind": "table", "interactions": folder / "log.csv", "items": folder / name, **keys}
    audit = Audit()
    corpus = read(TableSourceConfig.model_validate(values), 0, audit)
    assert corpus.items is not None
    return corpus.items.select("item_id", "title").rows(), said(audit)


def said(audit: Audit) -> list[str]:
    return [finding["text"] for finding in audit.findings if finding["severity"] == "warning"]


def refusal(folder: Path, name: str, text: str, **keys: object) -> str:
    with pytest.raises(UserError) as caught:
        items_of(folder, name, text, **keys)
    return str(caught.value).replace(f"{folder}/", "")


def rows(titles: list[str], separator: str = ",", more: str = "c") -> str:
    lines = [f"i{n:03}{separator}{title}{separator}{more}\n" for n, title in enumerate(titles)]
    return separator.join(["item", "title", "category"]) + "\n" + "".join(lines)


PLAIN = [f"Plain title {n}" for n in range(20)]


@pytest.mark.parametrize(
    ("title", "at"),
    [
        ('13" monitor', 3),
        ('The "Best" lamp', 3),
        ('"Best" lamp', 3),
        ('"Heroes and other songs', 3),
        ('Greatest hits 7"', 3),
        ("6'2\" tall", 19),
        ('a ""double"" b', 0),
        ('"', 5),
        ('""', 5),
        ('5 " 6', 7),
        ('"a" and "b"', 7),
        ('x"', 19),
    ],
)
def test_a_mark_in_a_file_without_quoting_is_text(tmp_path: Path, title: str, at: int) -> None:
    for separator, name in ((",", "items.csv"), ("\t", "items.tsv")):
        titles = [*PLAIN]
        titles[at] = title
        found, told = items_of(tmp_path, name, rows(titles, separator))
        # An empty pair of marks is an empty field by any reading, as the library's csv module has it.
        wanted = None if title == '""' else title
        assert [read_ for _, read_ in found] == [*titles[:at], wanted, *titles[at + 1 :]]
        assert wanted is None or any("quote: none" in one for one in told)


@pytest.mark.parametrize("between", [1, 2, 9, 17])
def test_two_stray_marks_swallow_no_rows(tmp_path: Path, between: int) -> None:
    titles = ['"Heroes and more' if n == 1 else 'Greatest hits 7"' if n == 1 + between else t
              for n, t in enumerate(PLAIN)]  # fmt: skip
    for separator, name in ((",", "items.csv"), ("\t", "items.tsv")):
        text = separator.join(["item", "title"]) + "\n" + "".join(
            f"i{n:03}{separator}{t}\n" for n, t in enumerate(titles))  # fmt: skip
        found, told = items_of(tmp_path, name, text)
        assert [title for _, title in found] == titles
        assert f"{name} is read without quotation marks (quote: none)" in told[0]
        assert "in line 3" in told[0]


@pytest.mark.parametrize(
    ("written", "title"),
    [
        (r'"19\" disk"', '19" disk'),
        (r'"The \"Best\" lamp"', 'The "Best" lamp'),
        (r'"C:\\ drive and \"quotes\""', 'C:\\ drive and "quotes"'),
        (r'"ends with \""', 'ends with "'),
        (r'"\"starts"', '"starts'),
        (r'"a, b \" c"', 'a, b " c'),
        (r'"\\\" both"', '\\" both'),
        ('"two\nlines \\" here"', 'two\nlines " here'),
        (r'"a ""b"" \" c"', 'a "b" " c'),
        (r'"\"\"\""', '"""'),
    ],
)
def test_backslash_escapes_are_read(tmp_path: Path, written: str, title: str) -> None:
    quoted = [f'"{text}"' for text in PLAIN]
    found, told = items_of(tmp_path, "items.csv", rows([*quoted[:9], written, *quoted[9:]]))
    assert [text for _, text in found] == [*PLAIN[:9], title, *PLAIN[9:]]
    assert told == ['items.csv writes a quotation mark within a field as \\": read with escape: backslash.']


def test_what_databases_write_for_nothing_is_nothing(tmp_path: Path) -> None:
    text = 'item,title,category\n"i1","19\\" disk","c"\n"i2",\\N,\\N\n"i3","\\\\N",\\N\n'
    found, _ = items_of(tmp_path, "items.csv", text)
    assert found == [("i1", '19" disk'), ("i2", None), ("i3", "\\N")]


@pytest.mark.parametrize(
    "titles",
    [
        ["two\nlines"], ["City, The"], ['say "hi"'], ["a\n\nb", "c\n,d\n"], ["one\ntwo\nthree, four\nfive"],
        ['"'], ["\\"], ["C:\\", "next"], ["x\r\ny"], ["a\nb"] * 10, ['"quoted"\n"twice"'], ["trailing\n"],
    ],
)  # fmt: skip
def test_rfc_4180_is_read_as_ever_without_a_word(tmp_path: Path, titles: list[str]) -> None:
    with (tmp_path / "made.csv").open("w", newline="") as file:
        made = [["item", "title", "category"], *([f"i{n:03}", t, "c"] for n, t in enumerate([*PLAIN, *titles]))]
        csv.writer(file, lineterminator="\n").writerows(made)
    found, told = items_of(tmp_path, "items.csv", (tmp_path / "made.csv").read_bytes().decode())
    assert [title for _, title in found] == [*PLAIN, *titles]
    assert told == []


def test_marks_around_some_fields_and_within_others_are_both_read(tmp_path: Path) -> None:
    titles = [*PLAIN, '"City, The"', '13" monitor', '"say ""hi"""']
    found, told = items_of(tmp_path, "items.csv", rows(titles))
    assert [title for _, title in found][-3:] == ["City, The", '13" monitor', 'say "hi"']
    assert "marks around some fields and in the middle of others (1 line, first line 23)" in told[0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (rows([*PLAIN[:3], '"never closed', '"City, The"', *PLAIN[3:]]), 5),
        (rows(['"City, The"', *PLAIN[:3], '"opens', *PLAIN[3:9], 'closes"', *PLAIN[9:]]), 6),
        (rows([f'"{title}"' for title in PLAIN] + ['"broken" here', '"x"']), 22),
        (rows([f'"{title}"' for title in PLAIN] + ['"open', '"x"']), 22),
        (rows(['"City, The"', '"a" b', *PLAIN]), 3),
        ("item,title\n" + "".join(f'i{n},"title {n}"\n' for n in range(9)) + 'i9,"x\ni10,y\ni11,z"\n', 11),
        ('item,title\n"a,b\nc,d\n', 2),
        (rows([*PLAIN, '"x']).replace('"x,c\n', '"x'), 22),
        (rows(["a, b", '"open', *PLAIN]), 3),
        (rows(['"City, The"', *PLAIN, '13" x', '"odd" x']), 24),
    ],
)
def test_what_cannot_be_known_is_refused_with_line_and_key(tmp_path: Path, text: str, line: int) -> None:
    message = refusal(tmp_path, "items.csv", text)
    assert message.startswith(f"items.csv:{line}: a quotation mark")
    assert "Set data.source.quote: none if its marks are text, data.source.quote: double if they enclose" in message


def test_the_keys_settle_it(tmp_path: Path) -> None:
    text = "item,title\n" + "".join(f'i{n},"title {n}"\n' for n in range(9)) + 'i9,"x\ni10,y\ni11,z"\n'
    found, told = items_of(tmp_path, "items.csv", text, quote="double")
    assert (found[-1], told) == (("i9", "x\ni10,y\ni11,z"), [])
    found, told = items_of(tmp_path, "items.csv", text, items_format={"quote": "none"})
    assert [title for _, title in found][-3:] == ['"x', "y", 'z"']
    assert "9 lines of items.csv hold fields in quotation marks, which quote: none makes part of the text" in told[0]
    stray = rows(['"City, The"', '"a" b', *PLAIN])
    found, told = items_of(tmp_path, "items.csv", stray, quote="double")
    assert [title for _, title in found][:2] == ["City, The", "a b"]
    escaped = rows([r"6\" pan", r"a\, b"])
    found, told = items_of(tmp_path, "items.csv", escaped, escape="backslash")
    assert found == [("i000", '6" pan'), ("i001", "a, b")]
    found, told = items_of(tmp_path, "items.csv", rows(PLAIN, ";"), items_format={"delimiter": ";"})
    assert [title for _, title in found] == PLAIN


@pytest.mark.parametrize("ending", ["\r", "\r\n", "\n", "\r\r\n"])
def test_line_ends_of_any_kind_end_rows(tmp_path: Path, ending: str) -> None:
    found, told = items_of(tmp_path, "items.csv", rows(PLAIN).replace("\n", ending))
    assert [title for _, title in found] == PLAIN
    assert bool(told) is (ending in ("\r", "\r\r\n"))


def test_rows_with_too_few_columns_are_told(tmp_path: Path) -> None:
    found, told = items_of(tmp_path, "items.csv", rows(PLAIN) + 'i900,Short\ni901,"Short, too"\n\n')
    assert len(found) == 22
    assert told == ["2 rows of items.csv have fewer columns than the header (line 22, 23), which are empty there."]


def test_a_log_without_quoting_keeps_its_rows(tmp_path: Path) -> None:
    text = "user\titem\ttimestamp\tnote\n" + "".join(
        f"u{n % 9}\ti{n}\t{1_600_000_000 + n}\t{note}\n"
        for n, note in enumerate(["fine"] * 40 + ['"Great lamp'] + ["fine"] * 100 + ['as wide as 12"'] + ["fine"] * 10)
    )
    (tmp_path / "log.tsv").write_text(text)
    audit = Audit()
    corpus = read(TableSourceConfig(kind="table", interactions=tmp_path / "log.tsv"), 0, audit)
    assert corpus.interactions.collect().height == 152
    assert "log.tsv is read without quotation marks" in said(audit)[0]
    assert check_source(TableSourceConfig(kind="table", interactions=tmp_path / "log.tsv")) == []


def test_a_published_layout_names_the_way_out(tmp_path: Path) -> None:
    from msr_adapter.config.schema import HMSourceConfig

    (tmp_path / "t.csv").write_text("t_dat,customer_id,article_id\n2018-09-20,a,1\n")
    (tmp_path / "a.csv").write_text('article_id,prod_name\n1,"x\n"2","y, z"\n')
    with pytest.raises(UserError, match="read the file as kind: table with quote: none"):
        read(HMSourceConfig(kind="hm", transactions=tmp_path / "t.csv", articles=tmp_path / "a.csv"), 0, Audit())


def test_formats_are_said_or_told_by_content() -> None:
    assert FileFormatConfig(delimiter="\t").delimiter == "\t"
    for bad in ("", ",,", '"', "\n", "é", "\\"):
        with pytest.raises(ValueError, match="delimiter"):
            FileFormatConfig(delimiter=bad)


@pytest.mark.parametrize(
    ("log", "items", "n_items"),
    [
        ("01-unquoted-tsv-log/log.tsv", "01-unquoted-tsv-log/items.csv", 40),
        ("02-unquoted-tsv-titles/log.csv", "02-unquoted-tsv-titles/items.tsv", 40),
        ("03-inch-signs/log.csv", "03-inch-signs/items_one_mid.csv", 40),
        ("03-inch-signs/log.csv", "03-inch-signs/items_quoted_word_mid.csv", 40),
        ("04-backslash-quotes/log.csv", "04-backslash-quotes/items.csv", 40),
    ],
)
def test_files_that_people_have(log: str, items: str, n_items: int) -> None:
    folder = shared_data("").parent / "faults"
    if not folder.is_dir():
        pytest.skip("the shared inputs are not here")
    audit = Audit()
    corpus: Corpus = read(TableSourceConfig(kind="table", interactions=folder / log, items=folder / items), 0, audit)
    assert corpus.items is not None
    assert (corpus.interactions.collect().height, corpus.items.height) == (410, n_items)
    assert said(audit)
