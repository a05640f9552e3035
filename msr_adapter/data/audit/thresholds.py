"""Every finding of the audit, what it measures, and from which value on it is made: the one place for all of them."""

from dataclasses import dataclass

from msr_adapter.data.audit.report import Audit, Severity


@dataclass(frozen=True)
class FindingRule:
    """When a finding is made: at the first of error, warning and info whose bound ``measure`` reaches (None: never)."""

    topic: str
    measure: str
    info: float | None
    warning: float | None
    error: float | None
    why: str
    """Where the bounds come from."""


_LIFT = ("Share of the way from chance (.5) to perfect (1): a fifth, half, nine tenths. For scale, MicroLens: "
         "popularity alone has .66 with the last item as target, .79 as published.")  # fmt: skip
_ROWS = "Set by judgement: a hundredth of the catalogue is worth a look, a tenth changes what a result means."

RULES = (
    FindingRule("source", "what a reader, a filter or the image store had to do", None, None, None,
                "Said where it happens; nothing is dropped without a count."),
    FindingRule("id-forms", "share of ids that equal another except in form: 1.0 for 1, accents, blanks, quotes",
                None, 1e-9, None, "One user counts as two; which form is meant, only the data's owner knows."),
    FindingRule("id-codes", "share of ids that differ from another only in case or leading zeros", 1e-9, 0.01, None,
                "Codes may differ like that, and digests do; from a hundredth on, a program probably changed them."),
    FindingRule("null-ids", "share of interactions whose user or item stands for a missing one (nan, NULL, NA, \\N)",
                None, 1e-9, None, "All rows without a user become one user, who has seen everything."),
    FindingRule("lossy-ids", "share of ids that are numbers rounded on the way", None, 1e-9, None,
                "Several ids have become one; only another export brings them back."),
    FindingRule("near-ids", "share of ids that are missing from one file but are in it in another form",
                None, 1e-9, None, "They are dropped, or have no image, only because of how they are written."),
    FindingRule("repeated-pairs", "share of the rows read that repeat a (user, item) pair", 0.05, None, None,
                "Set by judgement: below it, repeats are mostly double clicks."),
    FindingRule("rare-items", "share of kept items with fewer than 5 interactions", 0.5, None, None,
                "5-core is the usual filter of the field (McAuley et al., 2015)."),
    FindingRule("short-history", "share of test examples with fewer than 3 items of history", 0.25, 0.5, None,
                "3 is the paper's block: with fewer, the recurrent summary never recurs."),
    FindingRule("few-test-users", "half the width of the widest 95 % interval that HR@k can have", 0.05, 0.1, None,
                "1.96 x sqrt(.25 / users): 384 users for 5 points, 96 for 10."),
    FindingRule("tied-times", "share of test targets at the same time as the item before", 1e-9, 0.05, None,
                "Which of the two is the target is then decided by the order of the rows."),
    FindingRule("whole-days", "share of interactions at a single time of day", 0.99, None, None,
                "Such times are dates: the order within a day is not known."),
    FindingRule("columns", "columns that look like times or images and are not read, or were chosen by their values",
                None, None, None, "What is not read may be what was meant."),
    FindingRule("attributes", "share of items or users without a value of an attribute that templates may use", None,
                0.5, None, "Set by judgement: with half missing, a template has to say what takes their place."),
    FindingRule("events", "what the events of a log are taken for", None, None, None, "What counts is set by hand."),
    FindingRule("sessions", "share of the rows of a log with sessions that have none", 0.0, 0.5, None,
                "Set by judgement: with half missing, sessions say little about what was done together."),
    FindingRule("joins", "rows whose key is not in the table that is joined to theirs", None, None, None,
                "One is enough for a warning: the columns of that table are empty there, and no row is dropped."),
    FindingRule("database", "which rows a watermark had fetched, and whether those below it are still the same",
                None, None, None, "Of rows below it, only the number is compared: one changed in place is missed."),
    FindingRule("missing-times", "share of the rows of a log that have no time, or one that stands for none",
                None, 1e-9, 0.25, "Their place in a history is a guess; at a quarter, so are many histories."),
    FindingRule("no-timestamps", "1 where times are positions or row numbers", 1, None, None,
                "Moments of two users cannot be compared, so leakage and recency are not measured."),
    FindingRule("time-leakage", "mean share of the training log that is later than a test target", 0.01, 0.25, None,
                "Ji et al. (TOIS 2023) show that rankings of models change with it, unpredictably."),
    FindingRule("filter-leakage", "share of items that filters keep or drop only because of what is held out",
                0.01, 0.1, None, _ROWS),
    FindingRule("not-yet-on-offer", "share of test negatives that first appear after the choice tested", 0.1, 0.2, None,
                "At these values, asking only whether the item had appeared has AUC .55, .60."),
    FindingRule("cold-targets", "share of test targets that training never saw", 0.01, 0.1, None, _ROWS),
    FindingRule("cold-gap", "difference of that share between test negatives and targets", 0.1, 0.2, None,
                "At these values, asking only whether training saw the item has AUC .55, .60."),
    FindingRule("popularity-heuristic", "AUC or GAUC of popularity alone, mirrored if below .5", 0.6, 0.75, 0.95,
                _LIFT),
    FindingRule("recency-heuristic", "AUC or GAUC of recency alone, mirrored if below .5", 0.6, 0.75, 0.95, _LIFT),
    FindingRule("repeated-targets", "share of test targets that their user had before (`data.repeats: keep`)",
                1e-9, None, None, "They change what is asked: to return to an item, or to find a new one."),
    FindingRule("repeat-heuristic", "AUC or GAUC of the user's own past alone, mirrored if below .5", 0.6, 0.75,
                0.95, _LIFT),
    FindingRule("title-heuristic", "AUC or GAUC of title overlap alone, mirrored if below .5", 0.6, 0.75, 0.95, _LIFT),
    FindingRule("same-titles", "share of items whose title is also another item's, in lower case without punctuation",
                0.01, 0.1, None, _ROWS),
    FindingRule("near-titles", "share of items with a title whose words are nearly another's (Jaccard .8 or more)",
                0.05, 0.25, None, _ROWS),
    FindingRule("duplicate-negatives", "share of test lists in which a negative has the target's title",
                0.001, 0.01, None, "Each limits what a model that reads titles can reach: it cannot tell them apart."),
    FindingRule("empty-titles", "share of items that have an image but no title", 1e-9, 0.05, None,
                "Only its image says anything about such an item, and a user summary has no words for it."),
    FindingRule("nothing-to-show", "share of items with neither title nor image", 1e-9, 0.01, 0.5,
                "The prompt of such a candidate says nothing about it."),
    FindingRule("same-images", "share of items with an image that is also another item's", 0.01, 0.1, None, _ROWS),
    FindingRule("placeholder-image", "share of items with an image that show the most used one (5 items at least)",
                None, 0.01, None, "Set by judgement: shops show one `no image` placeholder for many items."),
    FindingRule("label-balance", "negatives per positive in training", 4.5, None, None,
                "The paper trains at 1; well above, a model learns to say No."),
    FindingRule("target-position", "standard errors from the target's mean position to the middle of the list",
                None, 5, None, "5 happens by chance once in 1.7 million."),
)  # fmt: skip
"""Every finding that the audit can make. `docs/audit.md` is written from this table."""

_BY_TOPIC = {rule.topic: rule for rule in RULES}


def severity(topic: str, value: float) -> Severity | None:
    """Return how severe a finding on ``topic`` is at this ``value``, None when there is nothing to say."""
    rule = _BY_TOPIC[topic]
    bounds: tuple[tuple[Severity, float | None], ...] = (
        ("error", rule.error), ("warning", rule.warning), ("info", rule.info),
    )  # fmt: skip
    return next((name for name, bound in bounds if bound is not None and value >= bound), None)


def note(audit: Audit, topic: str, value: float, text: str) -> None:
    """Add the finding ``text`` where the rule of ``topic`` says that ``value`` calls for it."""
    if level := severity(topic, value):
        audit.find(level, text, topic)
