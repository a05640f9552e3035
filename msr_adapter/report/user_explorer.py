"""The user explorer's data: columns of numbers and texts, compressed, and each image once.

`pack_users` and `pack_images` give two texts that a script element can hold whatever titles say, because both are
base64: the data, gzip of a JSON object, and the images, one line per item.

    {"users": {"id": [text], "rank": [expected rank of the target], "size": [candidates]},
     "kinds": {user: "Best" | "Typical" | "Worst"}, "ranks": {other model: [its rank of the target]},
     "items": {"id": [text], "title": [text], "summary": [text]}, "texts": [distinct user summaries],
     "history": {"count": [of each user], "item": [all users', oldest first]},
     "steps": {"count": [of each user], "read": [items read so far], "text": [place in texts]},
     "candidates": {"count": [of each user], "item": [best first], "place": [1 = best], "score": [in thousandths]},
     "measure": what a score is, "p(yes)" or "log-likelihood ratio",
     "targets": [places in candidates]}

Lines of the images: base64 of a WebP, `=12` for the image of item 12, `-` for one left out for its size, or nothing.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from msr_adapter.arrays import Floats
from msr_adapter.metrics import GroupMetrics
from msr_adapter.report.thumbnails import Thumbnails
from msr_adapter.report.user_sample import ShownUsers
from msr_adapter.report.user_texts import ShownTexts, clip


def pack_users(shown: ShownUsers, models: Mapping[str, GroupMetrics]) -> tuple[str, list[str]]:
    """Return the data text, and the item ids in its order; the trained model is the one that ranks."""
    ranking, held_out, texts = shown.ranking, shown.scored.held_out, shown.texts
    examples = [int(held_out.example_ids[user]) for user in ranking.users]
    histories = [texts.histories[example] for example in examples]
    candidates = held_out.items.take(ranking.rows).to_pylist()
    items = list(dict.fromkeys([*(item for history in histories for item in history), *candidates]))
    place = {item: number for number, item in enumerate(items)}
    # Columns, not objects: keys are written once, and equal numbers stand side by side for gzip.
    data = {
        "users": {
            "id": _distinct(clip(str(held_out.user_ids[int(user)]), 120) for user in ranking.users),
            "rank": _rounded(shown.scored.result.ranks[ranking.users]),
            "size": np.diff(held_out.offsets)[ranking.users].tolist(),
        },
        "kinds": {int(np.searchsorted(ranking.users, user)): kind for user, kind in shown.kinds.items()},
        "ranks": {name: _rounded(result.ranks[ranking.users]) for name, result in models.items() if name != "trained"},
        "items": {
            "id": [clip(item, 120) for item in items],
            "title": [texts.items[item].title for item in items],
            "summary": [texts.items[item].summary for item in items],
        },
        **_steps(examples, texts),
        "history": {
            "count": [len(history) for history in histories],
            "item": [place[item] for history in histories for item in history],
        },
        "candidates": {
            "count": ranking.counts.tolist(),
            "item": [place[item] for item in candidates],
            "place": ranking.places.tolist(),
            # By way of the text, so that it is rounded as the page's own numbers are.
            "score": [int(f"{value:.3f}".replace(".", "")) for value in shown.scored.scores[ranking.rows]],
        },
        "measure": shown.scored.measure,
        "targets": np.flatnonzero(held_out.labels[ranking.rows] > 0).tolist(),
    }
    # A browser refuses JSON with NaN in it. Without a time in gzip's header, equal runs give equal pages.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode(), items


def _distinct(names: Iterable[str]) -> list[str]:
    """Number the later ones of equal names: a user with two test examples stands there twice."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _steps(examples: Sequence[int], texts: ShownTexts) -> dict[str, object]:
    """Return the columns ``texts`` and ``steps``; users with equal summaries share one text."""
    steps = [texts.steps.get(example, ()) for example in examples]
    places = {text: number for number, text in enumerate(dict.fromkeys(s.text for grown in steps for s in grown))}
    columns = {
        "count": [len(grown) for grown in steps],
        "read": [step.items_read for grown in steps for step in grown],
        "text": [places[step.text] for grown in steps for step in grown],
    }
    return {"texts": list(places), "steps": columns}


def _rounded(ranks: Floats) -> list[float]:
    return [int(rank) if rank == int(rank) else round(float(rank), 2) for rank in ranks]


def image_order(shown: ShownUsers) -> list[str]:
    """Return the distinct image paths, the most wanted first: the cases', targets and histories, then by place."""
    ranking, held_out, texts = shown.ranking, shown.scored.held_out, shown.texts
    items = held_out.items.take(ranking.rows).to_pylist()
    owner = np.repeat(ranking.users, ranking.counts)
    targets = held_out.labels[ranking.rows] > 0
    cases = [user for _, user in shown.cases]
    first = np.where(np.isin(owner, cases), 0, np.where(targets, 1, 1 + ranking.places))

    def histories(users: Iterable[int]) -> list[str]:
        return [item for user in users for item in texts.histories[int(held_out.example_ids[user])]]

    order = np.argsort(first, kind="stable")
    head, tail = order[first[order] == 0], order[first[order] > 0]
    wanted = [*histories(cases), *(items[row] for row in head), *histories(ranking.users),
              *(items[row] for row in tail)]  # fmt: skip
    paths = (texts.items[item].image for item in dict.fromkeys(wanted))
    return [path for path in dict.fromkeys(paths) if path is not None]


def pack_images(items: Sequence[str], texts: ShownTexts, thumbnails: Thumbnails) -> str:
    """Return the lines of the images, in the order of ``items``."""
    lines: list[str] = []
    seen: dict[str, int] = {}
    for number, item in enumerate(items):
        path = texts.items[item].image
        if path in thumbnails.images and path is not None:
            first = seen.setdefault(path, number)
            data = base64.b64encode(thumbnails.images[path]).decode()
            lines.append(data if first == number else f"={first}")
        else:
            lines.append("-" if path in thumbnails.left_out else "")
    return "\n".join(lines)
