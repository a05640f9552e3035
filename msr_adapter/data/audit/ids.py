"""The ids of a log and its items: one written in two forms, words for nothing, numbers that were rounded."""

from collections.abc import Iterable

import polars as pl

from msr_adapter.arrays import Rows
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.audit.thresholds import note
from msr_adapter.data.id_forms import NULL_WORDS, Difference, NearIds, is_null_word, lossy, near_duplicates, shown
from msr_adapter.data.interaction_log import Log, degree
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.errors import plural

_FORMS: tuple[Difference, ...] = ("number", "accents", "unseen")
_CODES: tuple[Difference, ...] = ("zeros", "case")
"""What may well tell two things apart."""
_NAMED = 3
_LONGEST_WORD = max(map(len, NULL_WORDS))


def audit_ids(log: Log, corpus: Corpus, audit: Audit) -> None:
    """Find ids that people would take for one another or for none; nothing is merged. O(ids).

    ``log`` is as it was read: what a filter drops is looked at too.
    """
    if corpus.synthetic is None:
        users, items = degree(log.user, len(log.users)), degree(log.item, len(log.items))
        audit_id_counts(_counted(log.users, users), _counted(log.items, items), corpus, audit)


def audit_id_counts(users: pl.DataFrame, items: pl.DataFrame, corpus: Corpus, audit: Audit) -> None:
    """Do what `audit_ids` does for ids (``id``, each once) and how many ``rows`` have each."""
    for noun, counted in (("users", users), ("items", items)):
        _find_forms(noun, counted["id"], audit)
        _find_null_words(noun, counted, audit)
        _find_lossy(noun, counted["id"], audit)
    if corpus.items is not None:
        _find_forms("items of the table", corpus.items["item_id"], audit)


def _counted(ids: pl.Series, rows: Rows) -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "rows": rows})


def _find_forms(noun: str, ids: pl.Series, audit: Audit) -> None:
    near = near_duplicates(ids)
    for topic, kinds in (("id-forms", _FORMS), ("id-codes", _CODES)):
        if not (pairs := near.of(*kinds)):
            continue
        count = f"{noun.replace(' ', '_')}_{'in_another_form' if topic == 'id-forms' else 'like_another'}"
        audit.count(count, len(pairs))
        audit.name(count, pairs.pairs["id"])
        differ = "differs" if len(pairs) == 1 else "differ"
        note(audit, topic, len(pairs) / len(ids),
             f"{len(pairs):,} of {len(ids):,} {noun} {differ} from another only in form ({pairs.examples()}) and "
             f"count separately: nothing is merged. If they are the same: {pairs.advice()}.")  # fmt: skip


def _find_null_words(noun: str, ids: pl.DataFrame, audit: Audit) -> None:
    short = ids.filter(pl.col("id").str.len_bytes() <= _LONGEST_WORD)  # by far the fewest of most logs
    words = short.filter(is_null_word(pl.col("id"))).sort("rows", descending=True)
    if words.is_empty():
        return
    rows, kept = int(words["rows"].sum()), f"{noun[:-1]}"
    audit.count(f"{noun}_named_by_a_null_word", words.height)
    audit.name(f"{noun}_named_by_a_null_word", words["id"])
    note(audit, "null-ids", rows / max(int(ids["rows"].sum()), 1),
         f"{plural(rows, 'interaction')} {'has' if rows == 1 else 'have'} the {kept} {_some(words['id'])}, which "
         f"programs write where an id is missing; each such word counts as one {kept}. Remove such rows, or "
         "leave them out (data.source.drop_without_id: true), unless it is a real id.")  # fmt: skip


def _find_lossy(noun: str, ids: pl.Series, audit: Audit) -> None:
    rounded = lossy(ids)
    if rounded.is_empty():
        return
    audit.count(f"{noun}_rounded", len(rounded))
    audit.name(f"{noun}_rounded", rounded)
    note(audit, "lossy-ids", len(rounded) / len(ids), rounded_text(noun, len(rounded), rounded))


def rounded_text(noun: str, number: int, ids: pl.Series) -> str:
    """Return the finding that ``number`` ids, such as ``ids``, are numbers that lost digits."""
    are = "is a number" if number == 1 else "are numbers"
    return (f"{number:,} of the {noun} {are} that lost digits on the way ({_some(ids)}): a fraction or a spreadsheet "
            "keeps only 15 of them, so several ids may have become one, which cannot be undone. Export the column "
            "again, as text or whole numbers (in pandas, dtype str or Int64).")  # fmt: skip


def near_text(near: NearIds, where: str) -> str:
    """Return a sentence on ids that are absent in ``where`` and there in another form; nothing if there are none."""
    if not near:
        return ""
    there = "appears" if len(near) == 1 else "appear"
    return f" {len(near):,} of them {there} in another form ({near.examples()}) in {where}: {near.advice()}."


def _some(ids: Iterable[str]) -> str:
    first = [shown(one) for one, _ in zip(ids, range(_NAMED), strict=False)]
    return ", ".join(first)
