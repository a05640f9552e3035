"""The user explorer's data: columns of numbers and texts, compressed, and each cover once.

`pack` gives two texts that a script element can hold whatever titles say, because both are base64:
the data, gzip of a JSON object, and the covers, one line per item.

    {"users": {"id": [text], "rank": [expected rank of the true item], "size": [candidates]},
     "kinds": {user: "Best" | "Typical" | "Worst"}, "ranks": {other model: [its rank of the true item]},
     "items": {"id": [text], "title": [text], "summary": [text]}, "texts": [distinct preference texts],
     "history": {"count": [of each user], "item": [all users', oldest first]},
     "steps": {"count": [of each user], "read": [items read so far], "text": [place in texts]},
     "candidates": {"count": [of each user], "item": [best first], "place": [1 = best], "score": [1,000 p(yes)]},
     "true": [places in candidates of the true items]}

Lines of the covers: base64 of a WebP, `=12` for the picture of item 12, `-` for one that found no room, or nothing.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from msr_adapter.arrays import Floats, Integers
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.metrics import GroupMetrics
from msr_adapter.report.thumbnails import Thumbnails
from msr_adapter.report.user_sample import Ranking
from msr_adapter.report.user_texts import Readings, clip


def image_order(ranking: Ranking, always: Sequence[int], held_out: HeldOut, readings: Readings) -> list[str]:
    """Return the distinct image paths, the most wanted first: the cases', histories and true items, then by place."""
    items = held_out.items.take(ranking.rows).to_pylist()
    owner = np.repeat(ranking.users, ranking.counts)
    hits = held_out.labels[ranking.rows] > 0
    first = np.where(np.isin(owner, always), 0, np.where(hits, 1, 1 + ranking.places))
    examples = held_out.example_ids
    cases = [item for user in always for item in readings.histories[int(examples[user])]]
    histories = [item for user in ranking.users for item in readings.histories[int(examples[user])]]
    order = np.argsort(first, kind="stable")
    head, tail = order[first[order] == 0], order[first[order] > 0]
    wanted = [*cases, *(items[row] for row in head), *histories, *(items[row] for row in tail)]
    paths = (readings.items[item].image for item in dict.fromkeys(wanted))
    return [path for path in dict.fromkeys(paths) if path is not None]


def pack(
    ranking: Ranking,
    kinds: Mapping[int, str],
    models: Mapping[str, GroupMetrics],
    held_out: HeldOut,
    probabilities: Floats,
    readings: Readings,
) -> tuple[str, list[str]]:
    """Return the data text, and the item ids in its order. ``models`` begins with the one that ranks."""
    examples = [int(held_out.example_ids[user]) for user in ranking.users]
    histories = [readings.histories[example] for example in examples]
    candidates = held_out.items.take(ranking.rows).to_pylist()
    items = list(dict.fromkeys([*(item for history in histories for item in history), *candidates]))
    place = {item: number for number, item in enumerate(items)}
    ours, *others = models
    data = {
        "users": _users(ranking.users, models[ours], held_out),
        "kinds": {int(np.searchsorted(ranking.users, user)): kind for user, kind in kinds.items()},
        "ranks": {name: _rounded(models[name].ranks[ranking.users]) for name in others},
        "items": {
            "id": [clip(item, 120) for item in items],
            "title": [readings.items[item].title for item in items],
            "summary": [readings.items[item].summary for item in items],
        },
        **_steps(examples, readings),
        "history": {
            "count": [len(history) for history in histories],
            "item": [place[item] for history in histories for item in history],
        },
        "candidates": {
            "count": ranking.counts.tolist(),
            "item": [place[item] for item in candidates],
            "place": ranking.places.tolist(),
            "score": [int(f"{value:.3f}".replace(".", "")) for value in probabilities[ranking.rows]],
        },
        "true": np.flatnonzero(held_out.labels[ranking.rows] > 0).tolist(),
    }
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode(), items


def pack_covers(items: Sequence[str], readings: Readings, covers: Thumbnails) -> str:
    """Return the lines of the covers, in the order of ``items``."""
    lines: list[str] = []
    seen: dict[str, int] = {}
    for number, item in enumerate(items):
        path = readings.items[item].image
        if path in covers.images and path is not None:
            first = seen.setdefault(path, number)
            data = base64.b64encode(covers.images[path]).decode()
            lines.append(data if first == number else f"={first}")
        else:
            lines.append("-" if path in covers.left_out else "")
    return "\n".join(lines)


def _users(users: Integers, result: GroupMetrics, held_out: HeldOut) -> dict[str, Any]:
    return {
        "id": _distinct(clip(str(held_out.user_ids[int(user)]), 120) for user in users),
        "rank": _rounded(result.ranks[users]),
        "size": np.diff(held_out.offsets)[users].tolist(),
    }


def _distinct(names: Iterable[str]) -> list[str]:
    """Number the later ones of equal names: a user with two test examples stands there twice."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _steps(examples: Sequence[int], readings: Readings) -> dict[str, Any]:
    steps = [readings.steps.get(example, ()) for example in examples]
    texts = {text: number for number, text in enumerate(dict.fromkeys(s.text for path in steps for s in path))}
    columns = {
        "count": [len(path) for path in steps],
        "read": [step.read for path in steps for step in path],
        "text": [texts[step.text] for path in steps for step in path],
    }
    return {"texts": list(texts), "steps": columns}


def _rounded(ranks: Floats) -> list[float]:
    return [int(rank) if rank == int(rank) else round(float(rank), 2) for rank in ranks]
