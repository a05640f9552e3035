"""Items that nobody interacted with: in the catalogue, in no list unless asked for, and no reason to make any again."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from msr_adapter import schema
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import (
    ImagesConfig,
    KCoreConfig,
    LimitConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
)
from msr_adapter.pipeline import run
from msr_adapter.progress import Reporter
from msr_adapter.schema import listed_digest
from tests.support.data_builders import Built, build_in, random_rows, table_data
from tests.support.recommending import write, write_pipeline
from tests.support.scripted_pipeline import pretend_to_train_stages

ROWS = random_rows(40, 12, 5)
KNOWN = {f"i{item:03}": f"Title {item}" for item in range(12)}
NEW = {"a_new": "First", "i005x": "Between", "z_new": ""}
BY_TIME = SplitConfig(kind="temporal", validation_from=1_000_060_000, test_from=1_000_120_000)
SPLITS = [SplitConfig(), SplitConfig(kind="leave-last-out"), BY_TIME]


def protocol(catalogue: Any = "seen", kind: Any = "uniform", count: int = 3) -> ProtocolConfig:
    return ProtocolConfig(name="test", negatives=NegativesConfig(kind=kind, count=count), catalogue=catalogue)


def lists(built: Built, split: str) -> list[tuple[int, str, int]]:
    of = {row["example_id"] for row in built.rows("examples") if row["split"] == split}
    found = [tuple(row.values()) for row in built.rows("candidates") if row["example_id"] in of]
    return [(row[0] - min(of, default=0), *row[1:]) for row in found]


def catalogue(built: Built) -> dict[str, tuple[bool, bool]]:
    return {row["item_id"]: (row["in_log"], row["listed"]) for row in built.rows("items")}


@pytest.mark.parametrize("split", SPLITS, ids=lambda one: one.kind)
@pytest.mark.parametrize("kind", ["uniform", "popularity-matched", "all"])
def test_new_rows_of_the_table_change_no_list_of_the_log(tmp_path: Path, split: SplitConfig, kind: str) -> None:
    """The new ids stand between the old ones, so that every item's code is another."""
    made = []
    for name, titles in (("before", KNOWN), ("after", KNOWN | NEW)):
        built = build_in(tmp_path / name, table_data(tmp_path / name, ROWS, titles), split, protocol("seen", kind))
        made.append(built)
    before, after = made
    for table in ("interactions", "examples", "earlier", "candidates", "seen"):
        assert after.rows(table) == before.rows(table)
    assert before.result["candidates_digest"] == after.result["candidates_digest"]
    assert [row for row in after.rows("items") if row["listed"]] == before.rows("items")
    assert listed_digest(before.out / "items.parquet") == listed_digest(after.out / "items.parquet")
    assert {item for item, (_, listed) in catalogue(after).items() if not listed} == set(NEW)
    assert [row["item_id"] for row in after.rows("items")] == sorted(KNOWN | NEW)
    assert after.counts["items_without_interaction"] == after.counts["items_without_interaction_kept"] == 3
    assert after.counts["unseen_titles_empty"] == 1
    assert after.counts["items_kept"] == before.counts["items_kept"] == 12


@pytest.mark.parametrize("split", SPLITS, ids=lambda one: one.kind)
def test_the_whole_catalogue_is_ranked_where_the_protocol_says_so(tmp_path: Path, split: SplitConfig) -> None:
    built = {
        name: build_in(tmp_path / name, table_data(tmp_path / name, ROWS, KNOWN | NEW), split, protocol(name, "all"))
        for name in ("seen", "all")
    }
    seen, everything = built["seen"], built["all"]
    assert lists(seen, "train") == lists(everything, "train")  # where they could only ever be negatives
    for name in ("validation", "test"):
        extra = set(lists(everything, name)) - set(lists(seen, name))
        assert set(lists(seen, name)) <= set(lists(everything, name))
        assert {item for _, item, _ in extra} == set(NEW)
        assert len(extra) == 3 * len({example for example, *_ in lists(seen, name)})
    assert catalogue(everything) == {item: (item in KNOWN, True) for item in KNOWN | NEW}


def test_what_a_filter_drops_is_not_what_nobody_ever_saw(tmp_path: Path) -> None:
    rows = [*ROWS, ("u000", "rare", 5), ("u001", "unknown", 6)]
    data = table_data(tmp_path, rows, KNOWN | NEW | {"rare": "Rare"}, k_core=KCoreConfig(items=2))
    built = build_in(tmp_path, data)
    assert set(catalogue(built)) == set(KNOWN | NEW)
    assert built.counts["items_dropped_k_core"] == 1
    assert built.counts["items_without_interaction"] == 3


@pytest.mark.parametrize(
    ("limit", "kept"), [(LimitConfig(items=6), 0), (LimitConfig(items=6, unseen_items=2), 2),
                        (LimitConfig(unseen_items=0), 0), (LimitConfig(unseen_items=1), 1)],
)  # fmt: skip
def test_their_number_is_limited_and_the_rest_counted(tmp_path: Path, limit: LimitConfig, kept: int) -> None:
    built = build_in(tmp_path, table_data(tmp_path, ROWS, KNOWN | NEW, limit=limit), negatives=1)
    assert sum(not in_log for in_log, _ in catalogue(built).values()) == kept
    assert built.counts["items_without_interaction_kept"] == kept
    assert [one["text"] for one in built.audit["findings"] if f"Left out {3 - kept} of 3 items" in one["text"]]


@pytest.mark.parametrize("missing", ["text-only", "placeholder", "error"])
def test_their_images_are_stored_and_missing_ones_counted_apart(tmp_path: Path, missing: Any) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for item in (*KNOWN, "a_new"):
        Image.new("RGB", (40, 40), (len(item), 9, 9)).save(folder / f"{item}.png")
    data = table_data(tmp_path, ROWS, KNOWN | NEW, images=ImagesConfig(folder=folder, missing=missing))
    built = build_in(tmp_path, data)  # also where a missing image is an error: no list has these items
    images = {row["item_id"]: row["image"] for row in built.rows("items")}
    assert (built.out / images["a_new"]).is_file()
    assert (images["z_new"] is None) == (missing != "placeholder")
    assert built.counts["unseen_images_missing"] == 2
    assert "images_missing_absent" not in built.counts or not built.counts["images_missing_absent"]


def test_new_rows_make_nothing_again_but_the_data_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_to_train_stages(monkeypatch)
    write_pipeline(tmp_path)

    def states() -> dict[str, str]:
        sets = ("evaluate.protocol.negatives=3", "train.negatives=1")
        loaded = load_pipeline(str(tmp_path / "scripted.yaml"), sets, tmp_path / "run")
        return {one.name: one.state for one in run(loaded, ("evaluate",), reporter=Reporter(quiet=True)).stages}

    states()
    titles = [*(line.split(",") for line in (tmp_path / "items.csv").read_text().splitlines()[1:]), ("bb", "New")]
    write(tmp_path / "items.csv", ("item_id", "title"), titles)
    found = states()
    assert {name for name, state in found.items() if state == "done"} == {"data", "evaluate"}
    assert {"lengths", "items", "users", "dataset", "train", "score"} <= set(found)
    items = schema.read_table(tmp_path / "run" / "data" / "items.parquet", schema.ITEMS)
    assert items.filter(~items["listed"].to_numpy(zero_copy_only=False))["item_id"].to_pylist() == ["bb"]
    assert set(states().values()) == {"up to date"}
