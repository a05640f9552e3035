"""`msr init`: what it takes files for, what it decides and leaves open, and that what it writes runs."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import SourceConfig
from msr_adapter.data.published_layouts import likely_source
from msr_adapter.errors import UserError
from tests.support import reader_fixtures as published


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def write_log(path: Path, *, users: int = 12, header: str = "user_id,product_id,event_time", more: str = "") -> Path:
    draw = random.Random(1)
    rows = [f"u{user},p{item},{1_700_000_000 + user * 100 + place}{more}"
            for user in range(users) for place, item in enumerate(draw.sample(range(10), 6))]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def write_items(path: Path, count: int = 10) -> Path:
    path.write_text("product_id,title\n" + "".join(f"p{n},Title {n}\n" for n in range(count)))
    return path


def test_what_is_written_reads_the_files_and_builds(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv")
    write_items(tmp_path / "items.csv")
    (tmp_path / "pictures").mkdir()
    for n in range(4):
        Image.new("RGB", (30, 30)).save(tmp_path / "pictures" / f"p{n}.png")
    done = msr("init", "log.csv", "items.csv", "--images", "pictures")
    assert done.exit_code == 0, done.output
    assert "log.csv: 72 rows; users = user_id, items = product_id, time = event_time" in done.stdout
    assert "4 of 10 items have an image" in done.stdout
    assert "data.k_core 3 keeps 72 of 72 rows" in done.stdout
    text = (tmp_path / "my.yaml").read_text()
    assert "    interactions: log.csv\n" in text
    assert "  images: {folder: pictures}\n" in text
    loaded = load_pipeline("my.yaml")
    assert loaded.pipeline.name == "my"
    assert loaded.pipeline.data.images.folder == tmp_path / "pictures"
    assert msr("check", "my.yaml").exit_code == 0
    built = msr("build-data", "my.yaml", "--quiet")
    assert built.exit_code == 0, built.output
    assert pl.read_parquet(tmp_path / "runs/my/data/items.parquet").height == 10


def test_a_shop_s_own_export_is_taken_as_it_is_and_the_command_is_written_down(tmp_path: Path) -> None:
    write_log(tmp_path / "orders.csv", header="customer,sku,bought_at")
    log = (tmp_path / "orders.csv").read_text().replace(",", ";") + ";p1;1700000000\n"
    (tmp_path / "orders.csv").write_text(log)
    write_items(tmp_path / "items.csv")
    refused = msr("init", "orders.csv", "items.csv")
    assert "or leave such rows out by data.source.drop_without_id: true" in refused.stderr
    done = msr("init", "orders.csv", "items.csv", "--set", "data.source.drop_without_id=true")
    assert done.exit_code == 0, done.output
    assert "users = customer, items = sku, time = bought_at" in done.stdout
    text = (tmp_path / "my.yaml").read_text()
    assert "written by `msr init orders.csv items.csv --set data.source.drop_without_id=true`" in text
    assert msr("check", "my.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("make", "given", "kind"),
    [
        (published.movielens_100k, "", "movielens"),
        (published.movielens_1m, "", "movielens"),
        (published.movielens_20m, "", "movielens"),
        (published.hm, "", "hm"),
        (published.kuairec, "", "kuairec"),
        (published.microlens_csv, "", "microlens"),
        (published.microlens_100k, "", "microlens"),
        (published.official, "", "mllm-msr-amazon"),
        (published.recbole, "", "recbole"),
        (published.mmrec, "", "mmrec"),
        (published.amazon_jsonl, "", "amazon-2023"),
        (published.amazon_gz, "", "amazon-2023"),
        (published.pixelrec, "", "pixelrec"),
        (published.table_csv, "log.csv", "table"),
    ],
)
def test_published_layouts_are_told_apart(
    tmp_path: Path, make: Callable[[Path], SourceConfig], given: str, kind: str
) -> None:
    wanted = make(tmp_path / "set")
    found = likely_source(tmp_path / "set" / given)
    assert found.kind == kind
    for key, path in found.keys.items():
        assert getattr(wanted, key) == path


def test_a_published_data_set_is_written_as_its_kind(tmp_path: Path) -> None:
    folder = tmp_path / "ml"
    folder.mkdir()
    draw = random.Random(2)
    ratings = [f"{user},{item},{draw.randint(1, 5)},{1_600_000_000 + user * 50 + place}"
               for user in range(1, 10) for place, item in enumerate(draw.sample(range(1, 9), 5))]  # fmt: skip
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(ratings) + "\n")
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(f"{n},Film {n},Drama\n" for n in range(1, 9)))
    done = msr("init", "ml", "--out", "films.yaml")
    assert done.exit_code == 0, done.output
    source = load_pipeline("films.yaml").pipeline.data.source
    assert (source.kind, source.folder) == ("movielens", folder)  # type: ignore[union-attr]
    assert "ml is movielens" in done.stdout


def test_ratings_and_events_are_left_to_people(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", header="user_id,product_id,event_time,event_type,stars", more=",view,5")
    text = (tmp_path / "log.csv").read_text().replace("view,5", "purchase,1", 20)
    (tmp_path / "log.csv").write_text(text)
    done = msr("init", "log.csv", "--json")
    assert done.exit_code == 0, done.output
    unsure = " ".join(json.loads(done.stdout)["unsure"])
    assert "`stars` runs from 1 to 5" in unsure
    assert "`event_type` says what happened (view 52, purchase 20)" in unsure
    assert "no table of items" in unsure
    written = (tmp_path / "my.yaml").read_text()
    assert "# min_rating: 4 " in written
    suggested = "events: {column: event_type, positive: [purchase], history: [view]}"
    assert f"# {suggested}" in written
    switched_on = written.replace("# min_rating: 4 ", "min_rating: 4 ").replace(f"# {suggested}", suggested)
    (tmp_path / "liked.yaml").write_text(switched_on)
    source = load_pipeline("liked.yaml").pipeline.data.source
    assert source.min_rating == 4  # type: ignore[union-attr]
    assert source.events.positive == ("purchase",)  # type: ignore[union-attr]


def test_sessions_of_users_are_suggested(tmp_path: Path) -> None:
    header = "user_id,product_id,event_time,event_type,user_session"
    write_log(tmp_path / "log.csv", header=header, more=",view,s")
    text = (tmp_path / "log.csv").read_text().replace("view,s", "purchase,s", 20)
    (tmp_path / "log.csv").write_text(text)
    done = msr("init", "log.csv", "--set", "data.source.columns.user=user_id")
    assert done.exit_code == 0, done.output
    written = (tmp_path / "my.yaml").read_text()
    events = "events: {column: event_type, positive: [purchase], history: [view], same: session}"
    columns = "columns: {user: user_id, session: user_session}"
    assert f"# {columns}  # perhaps, in place of the columns above" in written
    on = written.replace("    columns: {user: user_id}\n", "").replace(f"# {columns}", columns)
    (tmp_path / "sessions.yaml").write_text(on.replace(f"# {events}", events))
    source = load_pipeline("sessions.yaml").pipeline.data.source
    assert source.columns.session == "user_session"  # type: ignore[union-attr]
    assert source.events.same == "session"  # type: ignore[union-attr]


def test_titles_in_the_log_are_found(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", header="user_id,product_id,event_time,title", more=",Lamp")
    done = msr("init", "log.csv")
    assert done.exit_code == 0, done.output
    assert "titles are read from log.csv itself" in done.stdout
    assert load_pipeline("my.yaml").pipeline.data.source.items == tmp_path / "log.csv"  # type: ignore[union-attr]


def test_a_published_split_and_a_thin_log_are_decided(tmp_path: Path) -> None:
    rows = ["user_id,item_id,timestamp,split"]
    rows += [
        f"u{n},i{m},{1_700_000_000 + n * 10 + m},{'test' if m == 1 else 'train'}" for n in range(30) for m in (0, 1)
    ]
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    done = msr("init", "log.csv")
    assert done.exit_code == 0, done.output
    loaded = load_pipeline("my.yaml").pipeline
    assert loaded.split.kind == "column"
    assert loaded.data.k_core.users == 2
    assert "data.k_core 2 keeps 60 of 60 rows" in done.stdout


def test_many_users_make_a_first_experiment(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", users=3_050)
    done = msr("init", "log.csv")
    assert done.exit_code == 0, done.output
    assert load_pipeline("my.yaml").pipeline.data.limit.users == 3000
    assert "3,000 of 3,050" in done.stdout


@pytest.mark.parametrize(
    "name",
    ["a shop [2024]", "100% #1", "\u00e9t\u00e9", "true", "12", "it's", "a\u2028b", "a\x85b", "caf\u00e9 \U0001f600"],
)
def test_odd_names_survive(tmp_path: Path, name: str) -> None:
    log = write_log(tmp_path / name / f"{name}.csv")
    done = msr("init", str(log), "--out", f"{name}.yaml")
    assert done.exit_code == 0, done.output
    assert load_pipeline(f"{name}.yaml").pipeline.data.source.interactions == log  # type: ignore[union-attr]


def test_names_and_words_of_the_data_cannot_write_settings(tmp_path: Path) -> None:
    header = 'user_id,product_id,event_time,event_type,"x\nrun_dir: elsewhere\ny","z\x85seed: 7"'
    write_log(tmp_path / "log.csv", header=header, more=',"view\nseed: 7",1,2')
    text = (tmp_path / "log.csv").read_text().replace("view\nseed: 7", "buy\rseed: 7", 20)
    (tmp_path / "log.csv").write_text(text, newline="")
    done = msr("init", "log.csv")
    assert done.exit_code == 0, done.output
    loaded = load_pipeline("my.yaml").pipeline
    assert (loaded.run_dir, loaded.seed) == (None, load_pipeline("table").pipeline.seed)
    written = (tmp_path / "my.yaml").read_text().splitlines()
    assert not [line for line in written if line.startswith(("run_dir", "seed", "y"))]


def test_bad_rows_and_bad_settings_write_nothing(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv")
    bad = (tmp_path / "log.csv").read_text() + "u1,p1,soon\nu2,,1700000000\n"
    (tmp_path / "log.csv").write_text(bad)
    done = msr("init", "log.csv")
    assert done.exit_code == 2
    assert "soon" in done.stderr
    assert not (tmp_path / "my.yaml").exists()
    refused = msr("init", "log.csv", "--set", "train.epochs=2")
    assert refused.exit_code == 2
    assert "train.epochs" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv"]


def test_settings_of_the_source_are_written(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", header="who,what,when")
    assert msr("init", "log.csv").exit_code == 2
    sets = [
        f"data.source.columns.{key}={name}" for key, name in (("user", "who"), ("item", "what"), ("timestamp", "when"))
    ]
    done = msr("init", "log.csv", *(part for one in sets for part in ("--set", one)))
    assert done.exit_code == 0, done.output
    assert "    columns: {user: who, item: what, timestamp: when}\n" in (tmp_path / "my.yaml").read_text()


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv")
    (tmp_path / "my.yaml").write_text("mine")
    assert msr("init", "log.csv").exit_code == 2
    assert (tmp_path / "my.yaml").read_text() == "mine"
    assert msr("init", "log.csv", "--overwrite").exit_code == 0
    assert "written by" in (tmp_path / "my.yaml").read_text()


def test_a_folder_of_nothing_says_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    with pytest.raises(UserError, match="no table"):
        likely_source(folder)
    (folder / "orders.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match="orders"):
        likely_source(folder)
    with pytest.raises(UserError, match="no such"):
        likely_source(tmp_path / "absent")
