"""`msr fetch-images` from the YAML to the image that the data stage stores."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import ImagesConfig, KCoreConfig
from msr_adapter.data.images.download import wanted_images
from msr_adapter.errors import UserError
from tests.support.data_builders import build_in, random_rows, table_data, write_csv
from tests.support.image_server import Server, image_bytes, ok, serving

ITEMS = 12


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(x=ok, gone=lambda handler: handler.send(b"", 404)) as server:
        yield server


def pipeline(folder: Path, server: Server, images: str = "{}") -> str:
    """Write a log of 12 items, and a table of 14: the last but one is gone, one names a file, one nothing."""
    write_csv(folder / "log.csv", ["user", "item", "timestamp"], random_rows(30, ITEMS, 4))
    urls = [server.url(f"x/{n}") for n in range(ITEMS + 2)]
    urls[0], urls[1], urls[2] = server.url("gone"), "own/1.jpg", ""
    items = [(f"i{n:03}", f"title {n}", url) for n, url in enumerate(urls)]
    write_csv(folder / "items.csv", ["item", "title", "image_url"], items)
    source = {"kind": "table", "interactions": "log.csv", "items": "items.csv"}
    model = {"model": {"path": "tiny"}}
    text = {"data": {"source": source, "images": yaml.safe_load(images)}, "summarize": {"items": model, "users": model},
            "train": model, "evaluate": {"protocol": {"name": "p", "negatives": {"count": 3}}}}  # fmt: skip
    (folder / "my.yaml").write_text(yaml.safe_dump(text))
    return str(folder / "my.yaml")


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["fetch-images", *arguments, "--quiet"])


def test_the_kept_items_with_a_url_are_fetched_and_used(tmp_path: Path, server: Server) -> None:
    path = pipeline(tmp_path, server, "{folder: covers}")
    done = msr(path, "--allow-private")
    assert done.exit_code == 0, done.output
    covers = tmp_path / "covers"
    assert done.stdout == (
        f"{covers}: 9 images downloaded, 0 there already, 1 failed; 2 of 12 items name no URL\n"
        "Not asked for: 2 images of items without an interaction, which no list has "
        "(evaluate.protocol.catalogue: seen). --all asks for them too\n"
        f"Failed: http_404 1; listed in {covers / 'fetch-failures.csv'}. Run it again to retry\n"
    )
    assert sorted(file.stem for file in covers.glob("*.png")) == [f"i{n:03}" for n in range(3, ITEMS)]
    built = build_in(tmp_path / "build", load_pipeline(path).pipeline.data)
    assert built.counts["images_copied"] == 9
    without = [row["item_id"] for row in built.rows("items") if row["image"] is None]
    assert without == ["i000", "i001", "i002", "i012", "i013"]
    assert built.counts["unseen_images_missing"] == 2
    [apart] = [finding for finding in built.audit["findings"] if "without an interaction" in finding["text"]]
    assert apart["text"].endswith("no usable image. `msr fetch-images --all` downloads those that they name by URL.")
    assert (built.counts["images_missing_not_fetched"], built.counts["images_missing_absent"]) == (1, 2)
    again = json.loads(msr(path, "--allow-private", "--json").stdout)
    assert (again["there_already"], again["fetched"], again["failed"]) == (9, 0, 1)
    assert server.hits["/x/3"] == 1


@pytest.mark.parametrize(("limit", "asked"), [(None, {"i012", "i013"}), (1, None), (0, set())])
def test_items_without_an_interaction_are_asked_for_where_lists_may_have_them(
    tmp_path: Path, server: Server, limit: int | None, asked: set[str] | None
) -> None:
    config = load_pipeline(pipeline(tmp_path, server), [f"data.limit.unseen_items={json.dumps(limit)}"]).pipeline
    seen = wanted_images(config.data, 0, every_item=False, protocol=config.evaluate.protocol)
    protocol = config.evaluate.protocol.model_copy(update={"catalogue": "all"})
    wanted = wanted_images(config.data, 0, every_item=False, protocol=protocol)
    more = wanted.urls.keys() - seen.urls.keys()
    assert (len(more), seen.unlisted, wanted.unlisted) == (2 if limit is None else limit, len(more), 0)
    built = build_in(tmp_path / "build", config.data, config.split, protocol)
    assert more == {row["item_id"] for row in built.rows("items")} & {"i012", "i013"}
    assert asked is None or more == asked


def test_all_items_of_the_table_into_another_folder(tmp_path: Path, server: Server) -> None:
    done = msr(pipeline(tmp_path, server), "--allow-private", "--all", "--out", str(tmp_path / "else"), "--json")
    result = json.loads(done.stdout)
    assert (result["items"], result["fetched"], result["items_without_url"]) == (14, 11, 1)
    assert result["items_with_file_or_bytes"] == 1
    assert (tmp_path / "else" / "i013.png").read_bytes() == image_bytes()
    text = msr(str(tmp_path / "my.yaml"), "--allow-private", "--out", str(tmp_path / "else")).stdout
    assert f"Use them: --set data.images.folder={tmp_path / 'else'}" in text


def test_loopback_is_refused_by_default_and_nothing_downloaded_is_a_failure(tmp_path: Path, server: Server) -> None:
    done = msr(pipeline(tmp_path, server, "{folder: covers}"))
    assert done.exit_code == 1
    assert "None of 10 images could be downloaded\nLikely cause: private_address 10; every item" in done.stderr
    assert not server.hits
    rows = pl.read_csv(tmp_path / "covers" / "fetch-failures.csv").rows()
    assert [row[0] for row in rows] == ["i000", *(f"i{n:03}" for n in range(3, ITEMS))]


def test_without_a_folder(tmp_path: Path, server: Server) -> None:
    done = msr(pipeline(tmp_path, server))
    assert done.exit_code == 2
    assert "data.images.folder: not given" in done.stderr
    assert "give --out FOLDER" in done.stderr


def test_when_no_item_names_a_url(tmp_path: Path, server: Server) -> None:
    path = pipeline(tmp_path, server, "{folder: covers}")
    write_csv(tmp_path / "items.csv", ["item", "title"], [(f"i{n:03}", "x") for n in range(ITEMS)])
    done = msr(path)
    assert done.exit_code == 2
    assert "data.source: none of 12 items names its image by URL" in done.stderr
    demo = msr("demo", "--out", str(tmp_path / "covers"))
    assert demo.exit_code == 2


def test_every_problem_of_the_source_at_once(tmp_path: Path, server: Server) -> None:
    path = pipeline(tmp_path, server, "{folder: covers}")
    (tmp_path / "log.csv").unlink()
    (tmp_path / "items.csv").unlink()
    done = msr(path)
    assert done.exit_code == 2
    assert done.stderr.count("no such file") == 2


def test_an_unfetched_pipeline_says_which_command_is_missing(tmp_path: Path, server: Server) -> None:
    path = pipeline(tmp_path, server)
    built = build_in(tmp_path / "build", load_pipeline(path).pipeline.data)
    assert "not_fetched: they name a URL: run `msr fetch-images`" in str(built.audit["findings"])
    with pytest.raises(
        UserError, match=r"covers data.images.folder: no such folder; .* fill it with `msr fetch-images`"
    ):
        build_in(tmp_path / "2", load_pipeline(path, [f"data.images.folder={tmp_path / 'covers'}"]).pipeline.data)


def test_only_the_kept_catalogue_is_wanted(tmp_path: Path) -> None:
    rows = [*random_rows(10, 4, 3), ("once", "rare", 5)]
    data = table_data(tmp_path, rows, images=ImagesConfig(), k_core=KCoreConfig(items=2))
    url = "http://shop.example/x.png"
    items = write_csv(
        tmp_path / "items.csv", ["item", "title", "image"], [(i, "", url) for i in ("i000", "rare", "new")]
    )
    data = data.model_copy(update={"source": data.source.model_copy(update={"items": items})})
    assert wanted_images(data, 0, every_item=True).urls == dict.fromkeys(("i000", "new", "rare"), url)
    assert wanted_images(data, 0, every_item=False).urls == {"i000": url}


def test_an_interrupted_download_says_what_is_kept(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("msr_adapter.data.images.download.fetch_into", interrupt)
    done = msr(pipeline(tmp_path, server, "{folder: covers}"))
    assert done.exit_code == 130
    kept = f"What was downloaded is kept in {tmp_path / 'covers'}. The same command continues from there."
    assert kept in done.stderr
