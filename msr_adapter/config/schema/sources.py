"""Where a log comes from: one model per format."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from msr_adapter.config.schema.base import Amount, StrictModel, Weight, allowed
from msr_adapter.config.schema.events import EventsConfig
from msr_adapter.config.schema.synthetic import SyntheticSourceConfig
from msr_adapter.config.schema.tables import (
    ONE_CHARACTER,
    ColumnName,
    ColumnNames,
    ColumnsConfig,
    Encoding,
    FileFormatConfig,
    HubTableConfig,
    JoinConfig,
    TableFormat,
)

RENAMED_KINDS = {"shop": "synthetic"}
"""Kinds under the names that they once had, so that an old pipeline is told the new one."""

MissingTimes = Literal["drop", "first", "error"]
"""What becomes of a row without a time: it is dropped, put before the user's others, or refused."""


class TableSourceConfig(StrictModel):
    """A log of your own: csv, tsv, jsonl (each also packed, `.gz`) or parquet, a file or a folder of them."""

    kind: Literal["table"]
    """A log of your own."""
    interactions: Path
    """One row per interaction: user, item, timestamp; maybe split, rating."""
    items: Path | None = None
    """One row per item: item, title; maybe text, category, image. Without it, titles are empty."""
    columns: ColumnsConfig = ColumnsConfig()
    """Names of the columns, where they are none of the well-known ones."""
    format: TableFormat | None = None
    """What the files hold, whatever their names end with; null = told by their content. `python` = a dict of Python on
    each line; `lists` = on each line a user and then all of the user's items, oldest first, between blanks."""
    delimiter: str | None = Field(None, pattern=ONE_CHARACTER, json_schema_extra=allowed("one ASCII character"))
    """What separates the fields of a csv or tsv: `","`, `"\\t"`, `";"`, `"|"`; null = told by each file."""
    quote: Literal["double", "none"] | None = None
    """double = fields may stand in quotation marks; none = a mark is text like any other; null = told by the files."""
    escape: Literal["double", "backslash"] | None = None
    """How a mark is written within a quoted field: doubled, or behind a backslash; null = told by the files."""
    names: ColumnNames = None
    """Names of the columns of the log, in their order, where its first line is a row already, `_` for those that are
    not read: `[user_id, item_id, _, timestamp]`; null = the first line says them."""
    header: bool = True
    """Whether the first line of the log names its columns. false without `names` = they are called 1, 2, 3 ..., and
    `columns: {user: 1, item: 2, timestamp: 4}` says which is which."""
    encoding: Encoding = None
    """How files of text are encoded (`cp1252`, `latin-1`, `utf-16`); null = UTF-8, or UTF-16 by their first bytes."""
    join: JoinConfig | None = None
    """A table whose columns belong to the rows of the log, such as the orders of what was bought."""
    items_join: JoinConfig | None = None
    """A table whose columns belong to the rows of the items, such as the names of their categories."""
    items_format: FileFormatConfig | None = None
    """The keys from `format` to `encoding` for the table of items alone. Without it, `quote`, `escape` and `encoding`
    hold for both files, `format` and `delimiter` for the items only where their name ends as that of the interactions,
    `names` and `header` for the log alone."""
    items_columns: ColumnsConfig | None = None
    """Names of the columns of the table of items, where they are called otherwise than `columns` says; null = `columns`
    holds for both."""
    timestamp_format: str | None = Field(None, pattern=r"%", json_schema_extra=allowed("directives such as %d.%m.%Y"))
    """How times are written where that is no usual form: `"%d.%m.%Y %H:%M"`, `"%m/%d/%Y %I:%M %p"` (of chrono, as in C
    and Python; without a zone they are UTC)."""
    decimal: Literal[".", ","] = "."
    """What separates the fraction of a number that is written as text."""
    min_rating: Amount | None = None
    """Interactions with a lower rating are no history and no target; their items count as seen."""
    events: EventsConfig | None = None
    """What the log's events mean, where it has a column of them; null = every row is an interaction."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""
    drop_without_id: bool = False
    """Leaves out and counts rows whose user or item is empty or a word for nothing (`nan`, `NULL`, `NA`). Without it,
    an empty id is refused, and such a word is an id like any other, which the audit tells."""

    @model_validator(mode="after")
    def _events_or_clicks(self) -> "TableSourceConfig":
        if self.events is not None and self.columns.clicked is not None:
            raise ValueError("events and columns.clicked: both say which rows are interactions; give one of them")
        if self.events is not None and self.events.same == "session" and not self.columns.session:
            raise ValueError("events.same: session needs columns.session, the column that says the session")
        return self


class MicroLensSourceConfig(StrictModel):
    """MicroLens-50k/100k as published."""

    kind: Literal["microlens"]
    """MicroLens-50k/100k as published."""
    pairs: Path
    """`*_pairs.csv` (user,item,timestamp) or `*_pairs.tsv` (user<TAB>item item item, oldest first)."""
    titles: Path
    """`*_titles.csv` (item,title) or `*_title_en.csv` (no header, commas unquoted)."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""


class AmazonSourceConfig(StrictModel):
    """Amazon Reviews 2023 as published."""

    kind: Literal["amazon-2023"]
    """Amazon Reviews 2023 as published."""
    reviews: Path
    """`{Category}.jsonl`, `{Category}.jsonl.gz`, or the benchmark's csv. The item is `parent_asin`."""
    meta: Path | None = None
    """`meta_{Category}.jsonl` or `.jsonl.gz`: titles, descriptions, categories and URLs of images."""
    min_rating: float | None = Field(None, ge=1, le=5)
    """Reviews with fewer stars are no history and no target; their items count as seen."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""


class OfficialAmazonSourceConfig(StrictModel):
    """The processed Amazon files of the method's official repository, flaws and all."""

    kind: Literal["mllm-msr-amazon"]
    """The processed Amazon files of the method's official repository."""
    folder: Path
    """Holds `{Category}_user_items_negs_{train,test}.csv`, `{Category}_i_map.tsv` and maybe `{Category}_u_map.tsv`."""
    category: str | None = None
    """Which one, where the folder holds several."""
    meta: Path | None = None
    """`meta_{Category}.jsonl` or `.jsonl.gz` of Amazon Reviews 2023: the files themselves have no titles."""


class MovieLensSourceConfig(StrictModel):
    """MovieLens 100k, 1M, 10M, 20M and later; the layout is told by the files."""

    kind: Literal["movielens"]
    """MovieLens of any size."""
    folder: Path
    """Holds `u.data` and `u.item`, `ratings.dat` and `movies.dat`, or `ratings.csv` and `movies.csv`."""
    min_rating: Amount | None = None
    """Interactions with fewer stars are no history and no target; their items count as seen."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""


class RecBoleSourceConfig(StrictModel):
    """RecBole's atomic files."""

    kind: Literal["recbole"]
    """RecBole's atomic files."""
    interactions: Path
    """`*.inter`: tab-separated, its header says `name:type`."""
    items: Path | None = None
    """`*.item`. Without it, titles are empty."""
    columns: ColumnsConfig = ColumnsConfig()
    """Names of the columns, `:type` included, where they are none of the well-known ones."""
    min_rating: Amount | None = None
    """Interactions with a lower rating are no history and no target; their items count as seen."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""
    drop_without_id: bool = False
    """Leaves out and counts rows whose user or item is empty or a word for nothing (`nan`, `NULL`, `NA`). Without it,
    an empty id is refused, and such a word is an id like any other, which the audit tells."""


class MMRecSourceConfig(StrictModel):
    """MMRec's interaction file, whose `x_label` is the split: 0 train, 1 validation, 2 test."""

    kind: Literal["mmrec"]
    """MMRec's interaction file."""
    interactions: Path
    """`*.inter`: tab-separated `userID`, `itemID`, `timestamp`, `x_label`."""
    items: Path | None = None
    """A table of your own with `itemID` and a title: MMRec publishes features, no titles."""
    columns: ColumnsConfig = ColumnsConfig()
    """Names of the columns, where they are none of the well-known ones."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""
    drop_without_id: bool = False
    """Leaves out and counts rows whose user or item is empty or a word for nothing (`nan`, `NULL`, `NA`). Without it,
    an empty id is refused, and such a word is an id like any other, which the audit tells."""


class PixelRecSourceConfig(StrictModel):
    """PixelRec as published; images are `{item}.jpg`."""

    kind: Literal["pixelrec"]
    """PixelRec as published."""
    interactions: Path
    """`Pixel200K.csv` and so on: item_id, user_id, timestamp."""
    items: Path | None = None
    """`item_info.csv`: item_id, ..., title, tag, description."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""


class HMSourceConfig(StrictModel):
    """H&M Personalized Fashion Recommendations as published; times are days."""

    kind: Literal["hm"]
    """H&M as published."""
    transactions: Path
    """`transactions_train.csv`."""
    articles: Path | None = None
    """`articles.csv`."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""


class KuaiRecSourceConfig(StrictModel):
    """KuaiRec as published: videos without images."""

    kind: Literal["kuairec"]
    """KuaiRec as published."""
    interactions: Path
    """`big_matrix.csv` or `small_matrix.csv`. Rows without a time are counted; their items count as seen."""
    captions: Path | None = None
    """`kuairec_caption_category.csv`: captions, texts printed on the videos, categories."""
    min_watch_ratio: Weight | None = None
    """What was watched for a smaller share of its length is no history and no target, but it counts as seen."""
    missing_times: MissingTimes = "drop"
    """Rows whose time is empty or stands for none, as some of the small matrix: `drop` leaves them out, `first` puts
    them before the user's others, `error` refuses them."""


class MINDSourceConfig(StrictModel):
    """MIND (news) as published: impressions with what was clicked and what was not."""

    kind: Literal["mind"]
    """MIND as published."""
    folder: Path
    """Holds `behaviors.tsv` and `news.tsv`. What was shown and not clicked is `negatives.kind: impressions`."""


class NetflixSourceConfig(StrictModel):
    """The Netflix Prize as published: ratings below a line for each film."""

    kind: Literal["netflix"]
    """The Netflix Prize as published."""
    folder: Path
    """Holds `combined_data_1.txt` (to `_4`) and `movie_titles.csv`."""
    min_rating: Amount | None = None
    """Interactions with fewer stars are no history and no target; their items count as seen."""


def _require_a_name(name: str) -> str:
    # What stands here by mistake may hold a password: it is not repeated.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("no name of a variable; expected one such as SHOP_DB, whose value is the address: no address "
                         "or password stands in a pipeline")  # fmt: skip
    return name


class SqlSourceConfig(StrictModel):
    """A log in a database: PostgreSQL, SQLite or DuckDB. Needs the extra `sql`."""

    kind: Literal["sql"]
    """A log in a database."""
    url_env: Annotated[str, AfterValidator(_require_a_name)]
    """Name of the environment variable with the address: `postgresql://user:password@host/shop`, `sqlite:///shop.db`.
    The address is read where it is needed, and written nowhere."""
    interactions: str = Field(pattern=r"\S")
    """A query with one row per interaction; it only reads."""
    items: str | None = Field(None, pattern=r"\S")
    """A query with one row per item. Without it, titles are empty."""
    snapshot: str | None = Field(None, pattern=r"\S")
    """A query whose rows differ where those of the others may: `SELECT count(*), max(updated_at) FROM orders`. null =
    every command fetches all rows, and compares them. `{watermark}` in it is the last value that was fetched before."""
    watermark: ColumnName | None = None
    """Column of the log that only grows, such as its time or a number, where rows are added and never changed: only
    what is new is fetched. That the rows known before are as many as they were is looked at first."""
    columns: ColumnsConfig = ColumnsConfig()
    """Names of the columns, where they are none of the well-known ones."""
    min_rating: Amount | None = None
    """Interactions with a lower rating are no history and no target; their items count as seen."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""
    drop_without_id: bool = False
    """Leaves out and counts rows whose user or item is empty or a word for nothing (`nan`, `NULL`, `NA`). Without it,
    an empty id is refused, and such a word is an id like any other, which the audit tells."""


class HuggingFaceSourceConfig(StrictModel):
    """A Hugging Face data set, from disk or from the hub."""

    kind: Literal["huggingface"]
    """A Hugging Face data set, from disk or from the hub."""
    interactions: HubTableConfig
    """One row per interaction. Where several splits are read, their names become the split column."""
    items: HubTableConfig | None = None
    """One row per item. Without it, titles are empty."""
    columns: ColumnsConfig = ColumnsConfig()
    """Names of the columns, where they are none of the well-known ones."""
    min_rating: Amount | None = None
    """Interactions with a lower rating are no history and no target; their items count as seen."""
    missing_times: MissingTimes = "error"
    """Rows whose time is empty or stands for none (0, -1, 1970-01-01, 9999-12-31, far from all others): `error`
    refuses them, for any place in a history is a guess; `drop` leaves them out; `first` puts them before the others."""
    drop_without_id: bool = False
    """Leaves out and counts rows whose user or item is empty or a word for nothing (`nan`, `NULL`, `NA`). Without it,
    an empty id is refused, and such a word is an id like any other, which the audit tells."""


SourceConfig = Annotated[
    TableSourceConfig
    | MicroLensSourceConfig
    | AmazonSourceConfig
    | OfficialAmazonSourceConfig
    | MovieLensSourceConfig
    | RecBoleSourceConfig
    | MMRecSourceConfig
    | PixelRecSourceConfig
    | HMSourceConfig
    | KuaiRecSourceConfig
    | MINDSourceConfig
    | NetflixSourceConfig
    | SqlSourceConfig
    | HuggingFaceSourceConfig
    | SyntheticSourceConfig,
    Field(discriminator="kind"),
]
