"""MovieLens of any size: 100k (`u.data`), 1M and 10M (`ratings.dat`, cut by `::`), 20M and later (`ratings.csv`)."""

from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from msr_adapter.config.schema import MovieLensSourceConfig
from msr_adapter.data.readers.interactions import LogColumns, read_log
from msr_adapter.data.readers.items import ItemColumns, read_items, words
from msr_adapter.data.readers.log_and_items import ITEM, header_problems
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import Layout, Table
from msr_adapter.data.readers.table_scan import file_problems, split_lines
from msr_adapter.errors import Problem, UserError, collecting, raise_if_any
from msr_adapter.filesystem import absent

_RATINGS = ("userId", "movieId", "rating", "timestamp")
_MOVIES = ("movieId", "title", "genres")
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""The flags of `u.item`, in the order of `u.genre`."""
_CSV = Layout("delimited")


@dataclass(frozen=True)
class _Version:
    """The two files of one layout."""

    ratings: str
    ratings_layout: Layout
    movies: str
    movies_layout: Layout


_VERSIONS = (
    _Version("u.data", Layout("delimited", "\t", False, _RATINGS),
             "u.item", Layout("delimited", "|", False, ("movieId", "title", "release", "video", "imdb", *_GENRES))),
    _Version("ratings.dat", Layout("delimited", "::", False, _RATINGS),
             "movies.dat", Layout("delimited", "::", False, _MOVIES)),
    _Version("ratings.csv", _CSV, "movies.csv", _CSV),
)  # fmt: skip


def movielens_files(source: MovieLensSourceConfig) -> dict[str, Path]:
    """Return the files that are read, by role; empty when there are none."""
    found = _find(source.folder)
    return {} if isinstance(found, Problem) else {"ratings": found[0].path, "movies": found[1].path}


def check_movielens(source: MovieLensSourceConfig) -> list[Problem]:
    """Return a problem for each file that is missing, or lacks a column."""
    found = _find(source.folder)
    if isinstance(found, Problem):
        return [found]
    problems: list[Problem] = []
    for table, needs in ((found[0], ("user", "item")), (found[1], ITEM)):
        problems += file_problems(table.path, "data.source.folder", (table.path.suffix,)) or (
            [] if table.layout.names else header_problems(table, needs, {})
        )
    return problems


def read_movielens(source: MovieLensSourceConfig, context: ReadContext) -> Corpus:
    """Read ratings and movies; `UserError` with the problems of both files."""
    found = _find(source.folder)
    if isinstance(found, Problem):
        raise UserError(found)
    ratings, movies = found
    problems: list[Problem] = []
    interactions, items = pl.LazyFrame(), None
    names = dict(zip(("user", "item", "rating", "timestamp"), _RATINGS, strict=True))
    with collecting(problems):
        interactions = read_log(ratings, LogColumns(names, source.min_rating, source.missing_times), context.audit)
    with collecting(problems):
        items = read_items(_as_utf8(movies), _item_columns(movies), context.audit)
    raise_if_any(problems)
    return Corpus(interactions, items)


def _find(folder: Path) -> tuple[Table, Table] | Problem:
    where, setting = str(folder), "data.source.folder"
    names = [f"{version.ratings} and {version.movies}" for version in _VERSIONS]
    if not folder.is_dir():
        found = absent(folder, "folder")
        return Problem(where, setting, found, f"a folder with {', or '.join(names)}", "Paths are relative to the YAML")
    for version in _VERSIONS:
        if (folder / version.ratings).is_file():
            if not (folder / version.movies).is_file():
                return Problem(where, setting, f"{version.ratings} without {version.movies}", "", "Add the other file")
            return (Table(folder / version.ratings, version.ratings_layout),
                    Table(folder / version.movies, version.movies_layout))  # fmt: skip
    return Problem(where, setting, "no ratings there", ", or ".join(names), "Name the unpacked folder")


def _item_columns(movies: Table) -> ItemColumns:
    if "Western" not in movies.layout.names:
        genres = words("genres", pl.String())
        listed = pl.when(genres != "(no genres listed)").then(genres)
        return ItemColumns("movieId", "title", {"category": listed}, ("genres",))
    flagged = [pl.when(pl.col(genre).str.strip_chars() == "1").then(pl.lit(genre)) for genre in _GENRES]
    genres = pl.concat_str(flagged, separator="|", ignore_nulls=True)
    return ItemColumns("movieId", "title", {"category": pl.when(genres != "").then(genres)}, _GENRES)


def _as_utf8(table: Table) -> Table:
    """Return a table whose text is UTF-8: the old files are latin-1, and at most a few megabytes."""
    data = table.path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:  # every byte is some character of latin-1, so this cannot fail
        lines = pl.LazyFrame({"line": data.decode("latin-1").removesuffix("\n").split("\n")})
        return replace(table, frame=split_lines(lines, table.layout))
    return table
