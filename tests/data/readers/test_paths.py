"""A path is the file that is called so: no reader expands a pattern, decodes an address or follows a protocol."""

import ast
from pathlib import Path

import polars as pl
import pytest

from msr_adapter.config.schema import (
    DataConfig,
    HubTableConfig,
    HuggingFaceSourceConfig,
    ImagesConfig,
    NegativesConfig,
    ProtocolConfig,
    SourceConfig,
    TableSourceConfig,
)
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.checks import check_data, check_protocol
from msr_adapter.data.id_list_files import read_user_ids
from msr_adapter.data.images.locate import images_in
from msr_adapter.data.negatives.candidate_files import read_lists
from msr_adapter.data.negatives.scored_items import read_scores
from msr_adapter.data.readers.sources import check_source, read
from msr_adapter.errors import UserError
from tests.support.paths import ROOT
from tests.support.reader_fixtures import SOURCES, put

NAMES = (
    "shop [2024]", "shop [2024] 100% #1 {x} *", "log[1]", "a?b", "[!a]", "[", "]x[", "[[]", "**", "*", "{a,b}", "b%20c",
    "day=1", "file:x", "s3:x", "x::y", "~z", "$HOME", "${HOME}", "back\\slash", "new\nline", " lead", "trail ", "é [1]",
    "e\u0301", "a;b&c", "'q\"", ".hidden [1]", "--set", "%s", "%(x)s", "\u202e[1]",
)  # fmt: skip
"""What folders and files may be called; some match others as patterns."""
DECOYS = ("log1", "axb", "b", "bc", "a", "b c", "shop 2")
ROWS = [("u1", "i1", 1_700_000_000), ("u1", "i2", 1_700_000_100), ("u2", "i1", 1_700_000_200)]
LOG = pl.DataFrame(ROWS, schema=["user", "item", "timestamp"], orient="row")
OTHER = pl.DataFrame([("no", "no", 1_600_000_000)] * 7, schema=["user", "item", "timestamp"], orient="row")
ITEMS = pl.DataFrame({"item": ["i1", "i2"], "title": ["One", "Two"]})
KINDS = ("csv", "tsv", "jsonl", "parquet", "parts")


def written(path: Path, frame: pl.DataFrame, kind: str) -> Path:
    """Write a table beside ``path``, which gets the suffix of its kind; `parts` is a folder of two Parquet files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parts":
        path.mkdir(exist_ok=True)
        frame.head(2).write_parquet(path / "part[0].parquet")
        frame[2:].write_parquet(path / "part[1].parquet")
        return path
    path = path.with_name(f"{path.name}.{kind}")
    with path.open("wb") as file:
        if kind == "jsonl":
            frame.write_ndjson(file)
        elif kind == "parquet":
            frame.write_parquet(file)
        else:
            frame.write_csv(file, separator="\t" if kind == "tsv" else ",")
    return path


def source_in(folder: Path, name: str, kind: str) -> TableSourceConfig:
    """Return a source whose folder and files are called ``name``, among others that the name may match."""
    for decoy in DECOYS:
        written(folder / decoy / decoy, OTHER, kind)
        written(folder / name / decoy, OTHER, kind)
    log = written(folder / name / name, LOG, kind)
    items = written(folder / name / f"items {name}", ITEMS, kind)
    return TableSourceConfig(kind="table", interactions=log, items=items)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_the_file_that_is_called_so(tmp_path: Path, name: str, kind: str) -> None:
    source = source_in(tmp_path, name, kind)
    assert check_source(source) == []
    corpus = read(source, 0, Audit())
    assert corpus.interactions.select("user_id", "item_id").collect().rows() == [row[:2] for row in ROWS]
    assert corpus.items is not None
    assert corpus.items["title"].to_list() == ["One", "Two"]


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_reads_in_any_folder_what_it_reads_in_a_plain_one(tmp_path: Path, kind: str) -> None:
    found = []
    for name in ("plain", "shop [2024] 100% #1 {x} *", "[!a] ?"):
        folder = tmp_path / name
        folder.mkdir()
        source: SourceConfig = SOURCES[kind](folder)
        assert check_source(source) == []
        corpus = read(source, 0, Audit())
        found.append((corpus.interactions.collect(), corpus.items))
    for log, items in found[1:]:
        assert log.equals(found[0][0])
        assert (items is None) if found[0][1] is None else items is not None and items.equals(found[0][1])


def test_a_file_with_brackets_that_is_not_there_is_not_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path / "log1", OTHER, "jsonl")
    source = TableSourceConfig(kind="table", interactions=tmp_path / "log[1].jsonl")
    (problem,) = check_source(source)
    assert problem.found == "no such file (did you mean log1.jsonl?)"


@pytest.mark.parametrize("name", ["shop [2024]", "a?b *", "$HOME", "100% #1", "x::y", ".hidden [1]"])
def test_a_folder_that_datasets_would_expand_is_loaded_as_it_is(tmp_path: Path, name: str) -> None:
    for folder, frame in ((name, LOG), ("shop 2", OTHER), ("axb c", OTHER)):
        written(tmp_path / folder / "train [1]", frame, "jsonl")
    source = HuggingFaceSourceConfig(kind="huggingface", interactions=HubTableConfig(path=str(tmp_path / name)))
    corpus = read(source, 0, Audit())
    assert corpus.interactions.select("user_id", "item_id").collect().rows() == [row[:2] for row in ROWS]


def test_where_even_temporary_files_would_be_expanded_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "shop [1]" / "train", LOG, "jsonl")
    (tmp_path / "temporary [2]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary [2]"))
    source = HuggingFaceSourceConfig(kind="huggingface", interactions=HubTableConfig(path=str(tmp_path / "shop [1]")))
    with pytest.raises(UserError, match=r"holds \[, \*.*Move it, or set TMPDIR"):
        read(source, 0, Audit())


@pytest.mark.parametrize("name", NAMES)
def test_images_lists_scores_and_ids_lie_in_any_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    image = folder / f"{name}.png"
    image.write_bytes(b"png")
    assert images_in(folder, [name])(name) == Path(tmp_path.resolve(), name, f"{name}.png")
    lists = pl.DataFrame({"user_id": ["u1"], "item_id": ["i1"], "label": [1]})
    parquet = written(folder / name, lists, "parquet")
    inter = put(folder / f"{name}.inter", "user_id:token\titem_id:token\tlabel:float\nu1\ti1\t1\n")
    assert read_lists(parquet).select("user_id", "item_id").rows() == [("u1", "i1")]
    assert read_lists(inter).select("user_id", "item_id").rows() == [("u1", "i1")]
    scores = put(folder / f"scores {name}.csv", "item_id,score\ni1,0.5\n")
    assert read_scores(scores)["item_id"].to_list() == ["i1"]
    assert read_user_ids(put(folder / f"{name}.txt", "u7\n"), "--users").to_list() == ["u7"]
    data = DataConfig(source=source_in(tmp_path, name, "csv"), images=ImagesConfig(folder=folder))
    protocol = ProtocolConfig(name="p", candidates=parquet, negatives=NegativesConfig(kind="hard", scores=scores))
    assert check_data(data) == []
    assert check_protocol(protocol, NegativesConfig()) == []


def test_a_damaged_file_with_brackets_is_named_with_its_line(tmp_path: Path) -> None:
    path = put(tmp_path / "log[1].jsonl", '{"user": "a", "item": "b"}\n{"user": \n')
    put(tmp_path / "log1.jsonl", '{"user": "a", "item": "b"}\n')
    with pytest.raises(UserError, match=r"log\[1\]\.jsonl:2"):
        read(TableSourceConfig(kind="table", interactions=path), 0, Audit()).interactions.collect()


def test_no_call_of_polars_is_left_that_expands_paths() -> None:
    calls = {"scan_csv", "scan_parquet", "scan_lines", "read_csv", "read_parquet", "scan_ipc", "read_ipc"}
    found = 0
    for path in sorted((ROOT / "msr_adapter").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name, said = node.func.attr, ast.unparse(node)
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "pl" and name in calls:
                found += 1
                assert "glob=False" in said or "io.BytesIO(" in said, f"{path}:{node.lineno}"
            if name in ("scan_ndjson", "read_ndjson", "read_parquet_schema"):
                assert "glob.escape(" in said or "io.BytesIO(" in said, f"{path}:{node.lineno}"
            if name == "load_dataset":
                assert path.name == "huggingface.py", f"{path}:{node.lineno}"
    assert found > 5


def test_a_broken_part_is_named_and_not_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path / "log", LOG, "parts")
    LOG.write_parquet(tmp_path / "log" / "part3.parquet")
    with (tmp_path / "log" / "part[3].parquet").open("wb") as file:
        LOG.rename({"item": "other"}).write_parquet(file)
    source = TableSourceConfig(kind="table", interactions=tmp_path / "log")
    with pytest.raises(UserError, match=r"part\[3\]\.parquet item: no such column"):
        read(source, 0, Audit()).interactions.collect()
