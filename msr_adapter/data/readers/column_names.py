"""Which column is which: one table of the names that published data sets use."""

import re
from collections.abc import Mapping, Sequence

from msr_adapter.errors import Problem, UserError, closest

ALIASES = {
    "user": ("user_id", "uid", "customer_id", "reviewer_id", "visitor_id", "member_id", "customer_unique_id",
             "buyer_id", "account_id", "profile_id", "client_id", "person_id", "user", "customer", "reviewer",
             "visitor", "member", "username", "user_name", "profile_name"),
    "item": ("item_id", "iid", "video_id", "parent_asin", "asin", "movie_id", "article_id", "product_id", "book_id",
             "track_id", "song_id", "game_id", "app_id", "news_id", "anime_id", "recipe_id", "business_id", "goods_id",
             "content_id", "sku", "isbn", "stock_code", "item", "product", "movie", "video", "article"),
    "timestamp": ("timestamp", "time", "event_time", "event_timestamp", "ts", "time_ms", "timestamp_ms",
                  "unix_timestamp", "unix_time", "epoch", "epoch_ms", "created_at", "create_time", "creation_time",
                  "t_dat", "datetime", "interaction_time", "click_time", "rated_at", "purchased_at", "played_at",
                  "listened_at", "viewed_at", "watched_at", "visited_at", "occurred_at", "event_at", "added_at",
                  "bought_at", "ordered_at", "clicked_at", "order_time", "purchase_time", "review_time", "rating_time",
                  "visit_time", "server_time",
                  "unix_review_time", "sort_timestamp", "date", "event_date", "date_added", "created_date",
                  "creation_date", "order_date", "purchase_date", "review_date", "transaction_date", "invoice_date",
                  "rating_date", "interaction_date", "created"),
    "split": ("split", "x_label", "subset"),
    "rating": ("rating", "overall", "stars", "score", "watch_ratio"),
    "clicked": (), "impression": (), "session": (), "order": (),  # read where they are named, and only there
    "title": ("title", "name", "item_title", "item_name", "prod_name", "product_name", "product_title", "movie_title",
              "book_title", "video_title", "track_name", "song_name", "caption"),
    "text": ("text", "description", "item_description", "detail_desc", "abstract"),
    "category": ("category", "categories", "genres", "genre", "tag", "class", "product_type_name", "main_category",
                 "first_level_category_name"),
    "image": ("image", "image_path", "image_url", "image_file", "image_link", "image_name", "img", "img_url",
              "img_path", "im_url", "cover", "cover_url", "cover_image", "poster", "poster_url", "poster_path", "photo",
              "photo_url", "picture", "picture_url", "thumbnail", "thumbnail_url", "main_image", "image_urls",
              "images"),
}  # fmt: skip
"""Field -> names in order of preference; case, `_`, `-` and blanks do not count (`userID`, `movieId`).

Names that say that they are ids come before those that may be what is shown: `user` beside `user_id` is a name.
"""

NAME_IT = "Set data.source.columns."
"""How the next step begins where a column is not found."""

NAME_THEM = "Set data.source.names"
"""The same where there is no header; kinds whose files have one have no such key."""
_VALUE = re.compile(r"[+-]?\d+([.,]\d+)?|\d{4}-\d\d-\d\d.*|\d{1,2}[./]\d{1,2}[./]\d{4}.*")
"""What names no column: a number or a date."""

_MOST, _SHOWN, _TRIED = 30, 60, 8


def canonical(name: str) -> str:
    """Return a column name without case, blanks, `_`, `-` and a `:type` suffix."""
    # `user_id:token` is how RecBole writes a column and its type.
    return re.sub(r"[\s_-]", "", name.partition(":")[0]).casefold()


def find_columns(
    where: str,
    header: Sequence[str],
    required: Sequence[str],
    configured: Mapping[str, str | None],
    optional: Sequence[str] = (),
) -> dict[str, str]:
    """Return field -> column of ``header``; a configured name must match exactly; `UserError` with all that are absent.

    An ``optional`` field may be absent, unless it is configured.
    """
    found = {field: _match(header, field, configured.get(field)) for field in (*required, *optional)}
    lacking = [f for f in found if found[f] is None and (f in required or configured.get(f))]
    if lacking:
        misread = _misread(where, header) or _is_a_row(where, header)
        raise UserError(misread or [_lacking(where, header, field, configured.get(field)) for field in lacking])
    # Polars renames the second of two columns with one name; which one is meant is not ours to guess.
    if twice := [column for column in found.values() if f"{column}_duplicated_0" in header]:
        step = "Rename or remove one of them"
        raise UserError([Problem(where, str(column), "two columns have this name", "", step) for column in twice])
    return {field: column for field, column in found.items() if column is not None}


def candidates(header: Sequence[str], field: str) -> list[str]:
    """Return the columns that have a usual name of ``field``, the best name first."""
    by_name = {canonical(column): column for column in reversed(header)}  # of two that are alike, the first wins
    names = dict.fromkeys(canonical(alias) for alias in ALIASES[field])
    return [by_name[name] for name in names if name in by_name]


def _match(header: Sequence[str], field: str, configured: str | None) -> str | None:
    if configured is not None:
        return configured if configured in header else None
    return next(iter(candidates(header, field)), None)


def _misread(where: str, header: Sequence[str]) -> list[Problem]:
    """Return why a header is no header: it was written with another separator, or is no UTF-8 text at all."""
    line = header[0] if len(header) == 1 else ""
    if any("\0" in name for name in header):
        return [Problem(where, "", "the header holds zero bytes", "text in UTF-8", "Save the file as UTF-8")]
    for separator, name in ((";", "';'"), ("\t", "tabs"), (",", "','"), ("|", "'|'")):
        if separator in line:
            found = f"the header is one column, {line[:_SHOWN]!r}: it is separated by {name}"
            step = "Save it so, or read it as kind: table with data.source.delimiter"
            return [Problem(where, "", found, "',' in a .csv, tabs in .tsv, .inter and .item", step)]
    return []


def _is_a_row(where: str, header: Sequence[str]) -> list[Problem]:
    """Return what to do about a file that begins with a row: something in its header is a number or a date."""
    if list(header) == [str(place) for place in range(1, len(header) + 1)]:  # that nobody named
        return []
    values = [name for name in header if _VALUE.fullmatch(name.removesuffix("_duplicated_0").strip())]
    if not values or any(candidates(header, field) for field in ALIASES):
        return []
    shown = ", ".join(name[:_SHOWN] for name in header[:_MOST])
    step = f"{NAME_THEM} to the {len(header)} names of its columns, in their order"
    return [Problem(where, "", f"its first line is a row, not a header: {shown}", "a header", step)]


def _lacking(where: str, header: Sequence[str], field: str, configured: str | None) -> Problem:
    names = [configured] if configured else list(ALIASES[field])
    found = f"no column {configured!r}" if configured else f"no column for the {field}"
    tried = "" if configured else f"names tried: {', '.join(names[:_TRIED])} and others; "
    near = _near(header, names)
    hint = f"did you mean {near!r}? " if near else ""
    more = f" and {len(header) - _MOST:,} more" if len(header) > _MOST else ""
    return Problem(
        where,
        field,
        found,
        f"{hint}{tried}columns found: {', '.join(name[:_SHOWN] for name in header[:_MOST]) or 'none'}{more}",
        f"{NAME_IT}{field} to the name of the column",
    )


def _near(header: Sequence[str], names: Sequence[str]) -> str | None:
    by_name = {canonical(column): column for column in header}
    near = (closest(canonical(name), by_name, beginnings=False) for name in names)  # in the order of preference
    return next((by_name[match[0]] for match in near if match), None)
