"""The data stage: sources -> log -> splits and examples -> candidate lists, images and the audit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import polars as pl

from msr_adapter.arrays import Mask
from msr_adapter.config.schema import DataConfig, ProtocolConfig, SplitConfig, TrainNegativesConfig
from msr_adapter.data.attributes import Facts, read_attributes, write_attributes
from msr_adapter.data.audit.audited_data import AuditInputs
from msr_adapter.data.audit.checks import audit_statistics
from msr_adapter.data.audit.console_summary import print_audit
from msr_adapter.data.audit.ids import audit_ids
from msr_adapter.data.audit.report import Audit, Statistics
from msr_adapter.data.catalogue import catalogue_of, rows_beside
from msr_adapter.data.checks import check_data, check_protocol, packed_problems
from msr_adapter.data.cold_items import hold_out, is_cold, only_cold
from msr_adapter.data.event_tables import EventFacts, popularity_of, write_events
from msr_adapter.data.examples import Examples, assert_no_leak, make_examples
from msr_adapter.data.explicit_negatives import rejected_in_training, with_rejections, without_rejected
from msr_adapter.data.filters import clean
from msr_adapter.data.images.attach import attach_images
from msr_adapter.data.images.several import further_columns
from msr_adapter.data.images.store import ImageStore
from msr_adapter.data.interaction_log import Log, degree, encode
from msr_adapter.data.negatives.candidate_files import read_imported
from msr_adapter.data.negatives.candidates import Candidates, DrawInputs, draw_candidates
from msr_adapter.data.negatives.pools import ItemStatistics
from msr_adapter.data.negatives.spec import ListSpecs, Shortages, make_list_specs
from msr_adapter.data.negatives.twinless import without_twinless
from msr_adapter.data.published_split import HeldOutRows, tell_what_is_lost, unused_split
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import naming_files, read
from msr_adapter.data.splits import empty_splits, known_to_training, split_column_problems
from msr_adapter.data.tables import (
    ItemRows,
    digest_of_test_lists,
    write_candidates,
    write_earlier,
    write_examples,
    write_interactions,
    write_items,
    write_offered,
    write_seen,
    write_truth,
)
from msr_adapter.data.temporal import moments_of
from msr_adapter.data.unseen_items import kept_unseen, with_unseen
from msr_adapter.errors import LISTED, plural, raise_if_any
from msr_adapter.files import write_json
from msr_adapter.schema import SPLITS
from msr_adapter.stage_arguments import Job


@dataclass(frozen=True)
class BuildInputs:
    """The parts of a pipeline that decide the data."""

    data: DataConfig
    split: SplitConfig
    protocol: ProtocolConfig
    """Of the evaluation: the targets, and the candidates of the test lists."""
    train_negatives: TrainNegativesConfig
    history_step: int = 1
    """By how many items the beginning of a cut history moves."""
    mined: Path | None = None
    """What an earlier run's model scored (MINED), where training negatives are mined of it."""


class DataFacts(TypedDict):
    """What the stage's manifest says of the data."""

    counts: dict[str, int]
    """Of the audit."""
    splits: dict[str, dict[str, int]]
    """Split -> its numbers of users, examples and candidates."""
    history: dict[str, float]
    """min, median and max length of the histories, in items."""
    candidates_digest: str
    """Of the test lists."""
    sources: list[dict[str, Any]]
    """What each file was taken for: see `audit.recognition`."""
    attributes: NotRequired[Facts]
    """What the columns are that templates may say."""
    events: NotRequired[EventFacts]
    """Digests of the events."""


def build(inputs: BuildInputs, job: Job, image_cache: Path | None = None) -> DataFacts:
    """Write the stage's tables, images and `audit.json` into the job's folder; return what its manifest says.

    The result depends on the content of the sources and on the seed, never on the order of rows with distinct times.
    ``image_cache`` is a folder of images that earlier builds shrunk. `UserError` with every problem of the input.
    """
    data, split, protocol, seed, out = inputs.data, inputs.split, inputs.protocol, job.seed, job.out
    # A packed file is unpacked to its end only here: that may take long, and what can be told fast is told first.
    raise_if_any((check_data(data) or packed_problems(data)) + check_protocol(protocol, inputs.train_negatives))
    audit = Audit()
    audit.attributes = data.items.attributes
    audit.several_images = further_columns(data.images)
    corpus, log, beside = _log(inputs, seed, audit)
    attributes = read_attributes(data, corpus)
    examples = _examples(log, inputs, seed, audit)
    training = _training(log, split, examples, seed)
    # Counted on what training may know: a popularity that counts the targets would give them away.
    popularity = popularity_of(log, training)
    catalogue = catalogue_of(log.items, corpus, audit)
    targets = degree(log.item[examples.target[examples.split == 0]], len(log.items))
    known = ItemStatistics(log.items, popularity, pl.Series(catalogue.categories, dtype=pl.String), targets)
    specs = make_list_specs(protocol, inputs.train_negatives, log, known, audit, inputs.mined)
    examples = without_twinless(log, examples, specs, protocol.candidates is not None, audit)
    _tell_published_split(log, examples, audit)
    _count_without_impression(log, examples, specs, audit)
    imported = _imported(protocol, log, examples, specs, seed)
    candidates = _candidates(DrawInputs(log, examples, specs, seed, imported), audit)
    store = ImageStore(out, data.images, image_cache)
    stored = attach_images(catalogue.ids, corpus, store, audit, job.reporter, beside.to_list())
    images, more = stored[: len(log.items)], stored[len(log.items) :]
    in_log = np.ones(len(log.items), dtype=bool) if log.table_only is None else ~log.table_only
    rows = ItemRows(catalogue, images, popularity, in_log, listed=True)
    write_items(rows, rows_beside(beside, corpus, more, audit), out)
    described = write_attributes(attributes, log.items, beside, log.users, out)
    events = _write_log(log, training, examples, out)
    write_candidates(log, candidates, out)
    if corpus.synthetic is not None:
        write_truth(log, examples, candidates, corpus.synthetic, out)
    statistics = audit_statistics(
        AuditInputs(log, examples, training, popularity, candidates, catalogue, images, split, seed), audit
    )
    lengths = examples.end - examples.start
    facts = DataFacts(
        counts=audit.counts,
        splits=_split_counts(examples, candidates),
        history={"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())},
        candidates_digest=digest_of_test_lists(log, examples, candidates),
        sources=[found.as_json() for found in audit.recognised],
    )
    _add(facts, described, events)
    found: Statistics = {
        "splits": facts["splits"], "history": facts["history"], "candidates_digest": facts["candidates_digest"],
        "statistics": statistics,
    }  # fmt: skip
    write_json(out / "audit.json", audit.as_json(**found))
    print_audit(audit, found, job.reporter, attributes.lines)
    return facts


def _add(facts: DataFacts, attributes: Facts | None, events: EventFacts | None) -> None:
    if attributes:
        facts["attributes"] = attributes
    if events:
        facts["events"] = events


def _training(log: Log, split: SplitConfig, examples: Examples, seed: int) -> Mask:
    """Return the rows that training may know of and that count."""
    training = known_to_training(log, split, examples.held_out, seed) & ~is_cold(log)
    return training & ~rejected_in_training(log, split, examples.held_out)


def _log(inputs: BuildInputs, seed: int, audit: Audit) -> tuple[Corpus, Log, pl.Series]:
    """Return what was read, the log that is kept of it, and the ids of what is in the catalogue beside the log."""
    data, split = inputs.data, inputs.split
    corpus = read(data.source, seed, audit)
    # Before the log is encoded, which is where a large build spends its time.
    raise_if_any(split_column_problems(corpus.interactions) if split.kind == "column" else [])
    unused_split(corpus.interactions, split.kind, audit)
    with naming_files(data.source):
        keeps, moments = data.repeats == "keep", moments_of(split)
        log = encode(corpus, audit, published_split=split.kind == "column", keep_repeats=keeps, moments=moments)
    audit_ids(log, corpus, audit)
    log = clean(log, corpus, data, seed, audit, split)
    unseen = kept_unseen(log, data.limit, seed, audit)
    if inputs.protocol.catalogue == "all":
        log, unseen = with_unseen(log, unseen), unseen.clear()
    return corpus, with_rejections(hold_out(log, split, inputs.protocol.cold, seed, audit), audit), unseen


def _write_log(log: Log, training: Mask, examples: Examples, out: Path) -> EventFacts | None:
    write_interactions(log, training, out)
    write_seen(log, out)
    write_offered(log, out)
    write_examples(log, examples, out)
    write_earlier(log, examples, out)
    return write_events(log, examples, out)


def _imported(protocol: ProtocolConfig, log: Log, examples: Examples, specs: ListSpecs, seed: int) -> Candidates | None:
    if protocol.candidates is None:
        return None
    # Lists that begin with what users had rejected have what they had seen.
    explicit = specs[2].negatives.rejected == "first" and log.rejected is not None
    exclude = "seen" if specs[2].excludes_seen and not explicit else "target"
    return read_imported(protocol.candidates, log, examples, seed, exclude)


def _candidates(inputs: DrawInputs, audit: Audit) -> Candidates:
    shortages = Shortages()
    if inputs.imported is not None:
        audit.find("info", "The test candidates are those of evaluate.protocol.candidates; nothing was drawn for them.")
    candidates = draw_candidates(inputs, shortages)
    for setting, (number, lists) in shortages.explicit.items():
        audit.count(f"{'train' if setting.startswith('train') else 'held_out'}_negatives_explicit", number)
        audit.find("info", f"{plural(number, 'negative')} of {plural(lists, 'list')} by {setting} "
                   f"{'is' if number == 1 else 'are'} what the users had rejected by then.", "events")  # fmt: skip
    for (kind, other), number in shortages.fallbacks.items():
        audit.count(f"negatives_{kind}_fell_back_to_{other}".replace("-", "_"), number)
        audit.find("info", f"Too few {kind} items: drew {plural(number, 'negative')} as {other} instead.")
    return candidates


def _examples(log: Log, inputs: BuildInputs, seed: int, audit: Audit) -> Examples:
    """Return the examples, checked for leaks; `UserError` where a split got none."""
    split, protocol = inputs.split, inputs.protocol
    examples = only_cold(log, make_examples(log, split, seed, protocol.target, inputs.history_step))
    examples = without_rejected(log, examples, split, inputs.history_step, audit)
    assert_no_leak(log, examples)
    if log.era is not None:
        unknown = degree(log.item[log.era == 0], len(log.items)) == 0
        for code, name in enumerate(SPLITS[1:], 1):
            found = unknown[log.item[examples.target[examples.split == code]]]
            audit.count(f"{name}_targets_of_new_items", int(found.sum()))
    tied = log.time[examples.row(examples.end - 1)] == log.time[examples.target]
    audit.count("examples_with_history_at_the_time_of_the_target", int(tied.sum()))
    if protocol.target == "most-popular-last":
        audit.find("warning", "The target is the latest of each user's 6 most popular items, as in the published "
                   "MicroLens code: popularity alone nearly finds it. Use evaluate.protocol.target: last to learn how "
                   "good a model is.")  # fmt: skip
    without = np.setdiff1d(np.arange(len(log.users)), examples.user)
    audit.count("users_without_example", len(without))
    audit.name("users_without_example", log.users.gather(without[:LISTED]).to_list())
    sizes = np.bincount(examples.split, minlength=len(SPLITS)).tolist()
    raise_if_any(empty_splits(log, split, sizes, audit))
    return examples


def _count_without_impression(log: Log, examples: Examples, specs: ListSpecs, audit: Audit) -> None:
    """Count the targets whose lists are to have what was shown beside them, and that have no such items."""
    for code, (name, spec) in enumerate(zip(SPLITS, specs, strict=True)):
        if not spec.several or log.impressions is None or examples.beside is None:
            continue
        mine = examples.split == code
        low, high = log.impressions.span(examples.target[mine])
        without = int((low == high).sum())
        audit.count(f"{name}_targets_without_impression", without)
        audit.count(f"{name}_positives_beside_targets", int(examples.beside.counts[mine].sum()))
        if without:
            share = f"{without:,} of {plural(int(mine.sum()), f'{name} target')} ({without / mine.sum():.0%})"
            audit.find("info", f"{share} {'has' if without == 1 else 'have'} no impression with an item that was not "
                       f"clicked: {spec.setting}.fallback stands in.")  # fmt: skip


def _tell_published_split(log: Log, examples: Examples, audit: Audit) -> None:
    if log.split is None:
        return
    is_target = np.zeros(len(log.user), dtype=bool)
    is_target[examples.held_out] = True
    tell_what_is_lost(HeldOutRows(log.user, log.item, log.split, is_target, log.keeps), audit)


def _split_counts(examples: Examples, candidates: Candidates) -> dict[str, dict[str, int]]:
    of = examples.split[candidates.example]
    return {
        name: {
            "users": len(np.unique(examples.user[examples.split == code])),
            "examples": int((examples.split == code).sum()),
            "candidates": int((of == code).sum()),
        }
        for code, name in enumerate(SPLITS)
    }
