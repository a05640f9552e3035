"""What the targets were ranked among: sampled metrics say so, wherever they are shown."""

from collections.abc import Mapping

from msr_adapter.config.schema import ProtocolConfig
from msr_adapter.errors import plural
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.metrics_file import Sampling

_DISTRIBUTIONS = {
    "uniform": "uniform over the items",
    "popularity": "drawn by popularity",
    "popularity-matched": "about as popular as the target",
    "same-category": "of the target's category",
    "hard": "highly scored by another model",
    "impressions": "shown together with the target and not clicked",
}
_CAUTION = (
    "sampled metrics may order models otherwise than the whole catalogue does (Krichene and Rendle, 2020); compare "
    "only models judged on these lists"
)


_SHOWN = (
    "what was shown was chosen by the system that served it: such lists tell how well a model reorders that system's "
    "own choices, not what it would find in the catalogue"
)


def describe_sampling(protocol: ProtocolConfig, held_out: HeldOut, items: int) -> Sampling:
    """Return how many negatives the test lists have, from which distribution, and what that means; ``items``: all."""
    rows, targets = held_out.table.num_rows, int(held_out.labels.sum())
    users = len(held_out.example_ids)
    kinds = {} if protocol.candidates else protocol.negatives.kinds()
    sampled = protocol.candidates is not None or protocol.negatives.kind != "all"
    found: Sampling = {
        "sampled": sampled,
        "negatives": (rows - targets) / users,
        "kinds": kinds,
        "distribution": _distribution(protocol, kinds),
        "items": items,
        "caution": (_SHOWN if list(kinds) == ["impressions"] else _CAUTION) if sampled else "",
    }
    return found


def _distribution(protocol: ProtocolConfig, kinds: Mapping[str, int]) -> str:
    if protocol.candidates is not None:
        return "those of the given file"
    if not kinds:
        seen = protocol.negatives.exclude != "target"
        return "every item that the user never interacted with" if seen else "every item but the target"
    if len(kinds) == 1:
        (kind,) = kinds
        alpha = protocol.negatives.alpha
        power = f" to the power of {alpha:g}" if kind == "popularity" and alpha != 1 else ""
        return f"{_DISTRIBUTIONS[kind]}{power}"
    return ", ".join(f"{count} {_DISTRIBUTIONS[kind]}" for kind, count in kinds.items())


def sampling_line(sampling: Sampling) -> str:
    """Say it in one sentence, for tables and the report."""
    count = sampling["negatives"]
    number = f"{count:,.0f}" if float(count).is_integer() else f"{count:,.1f} (mean)"
    negatives = f"{number} negative{'' if count == 1 else 's'} per user, {sampling['distribution']}"
    catalogue = plural(sampling["items"], "item")
    if not sampling["sampled"]:
        return f"Ranked against the whole catalogue: {negatives}; {catalogue}."
    return f"Sampled: {negatives}; the catalogue has {catalogue}, and {sampling['caution']}."
