"""User summaries cut as the training's were, where a prompt would be longer than `train.cutoff_len`."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from msr_adapter import schema
from msr_adapter.config.schema import TrainConfig
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.progress import Reporter
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import UserTexts, truncate_summaries
from msr_adapter.workflows.serve.work import Candidate, UserWork

_QUIET = Reporter(quiet=True)
_EMPTY = {"bool": True, "int64": 0, "int8": 0, "string": "", "list<item: string>": []}
"""Type -> the value of a column that nobody reads."""


class LiveTruncation:
    """Cuts by the stage's own function, over tables of one batch in a temporary folder."""

    def __init__(self, train: TrainConfig, dirs: StageDirs, prompts: Prompts) -> None:
        self._train, self._dirs, self._prompts = train, dirs, prompts
        self._encoder = Encoder(train.model)

    def shown(
        self, work: Sequence[UserWork], texts: Sequence[str], histories: Sequence[Sequence[HistoryItem]]
    ) -> list[str]:
        """Return what prompts show of each user, given the summary and the history it was made of.

        Raises `UserError` where a prompt stays too long.
        """
        asked = [place for place, one in enumerate(work) if one.candidates and one.has_user]
        shown = list(texts)
        if not asked:
            return shown
        with tempfile.TemporaryDirectory(prefix="msr-serve-") as folder:
            out = Path(folder, "out")
            out.mkdir()
            _write(Path(folder), [work[place] for place in asked], [texts[place] for place in asked])
            dirs = replace(self._dirs, data=Path(folder), examples=Path(folder), users=Path(folder))
            user_texts = UserTexts(self._prompts, _lookup([histories[place] for place in asked]))
            job = Job(out, _QUIET)
            truncate_summaries(self._train, dirs, user_texts, job, splits=("test",), encoder=self._encoder)
            table = schema.read_table(out / "users.parquet", schema.USER_SUMMARIES).sort_by("example_id")
        for place, text in zip(asked, table["summary"].to_pylist(), strict=True):
            shown[place] = text
        return shown


def _lookup(
    histories: Sequence[Sequence[HistoryItem]],
) -> Callable[[pa.Table], Sequence[Sequence[HistoryItem]]]:
    return lambda examples: [histories[number] for number in examples["example_id"].to_pylist()]


def _write(folder: Path, work: Sequence[UserWork], texts: Sequence[str]) -> None:
    """Write the tables of a data folder whose examples are ``work``, in order, and their USER_SUMMARIES."""
    distinct: dict[Candidate, int] = {}
    pairs = [
        (number, distinct.setdefault(candidate, len(distinct)))
        for number, one in enumerate(work)
        for candidate in one.candidates
    ]
    numbers = range(len(work))
    _table(folder / "items.parquet", schema.ITEMS, {
        "item_id": [_id(place) for place in range(len(distinct))],
        "title": [one.title for one in distinct],
        "image": [str(one.image.path) if one.image else None for one in distinct],
        "image_digest": [one.image.digest if one.image else None for one in distinct],
        "popularity": [0] * len(distinct), "text": [""] * len(distinct),
    })  # fmt: skip
    _table(folder / "examples.parquet", schema.EXAMPLES, {
        "example_id": list(numbers), "split": ["test"] * len(work), "user_id": [str(number) for number in numbers],
        "history": [[] for _ in numbers], "timestamp": [0] * len(work),
    })  # fmt: skip
    columns: dict[str, Sequence[object]] = {
        "example_id": [number for number, _ in pairs],
        "item_id": [_id(place) for _, place in pairs],
    }
    _table(folder / "candidates.parquet", schema.CANDIDATES, {**columns, "label": [0] * len(pairs)})
    _table(folder / "users.parquet", schema.USER_SUMMARIES, {"example_id": list(numbers), "summary": list(texts)})


def _id(place: int) -> str:
    return f"{place:09}"  # the table of items is sorted by id


def _table(path: Path, columns: pa.Schema, values: Mapping[str, Sequence[object]]) -> None:
    rows = len(next(iter(values.values())))
    # What no prompt shows, such as whether lists may have an item, says nothing here.
    nothing = {field.name: None if field.nullable else _EMPTY[str(field.type)] for field in columns}
    arrays = [pa.array(values.get(field.name, [nothing[field.name]] * rows), field.type) for field in columns]
    schema.write_table(pa.table(arrays, schema=columns), columns, path)
