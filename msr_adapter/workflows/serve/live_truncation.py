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
from msr_adapter.prompts.stage_tables import copy_attributes
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import UserTexts, truncate_summaries
from msr_adapter.workflows.serve.served_data import ServedItems
from msr_adapter.workflows.serve.work import Candidate, UserWork

_QUIET = Reporter(quiet=True)
_EMPTY = {"bool": True, "int64": 0, "int8": 0, "string": "", "list<item: string>": []}
"""Type -> the value of a column that nobody reads."""


class LiveTruncation:
    """Cuts by the stage's own function, over tables of one batch in a temporary folder."""

    def __init__(self, train: TrainConfig, dirs: StageDirs, prompts: Prompts, items: ServedItems) -> None:
        self._train, self._dirs, self._prompts, self._items = train, dirs, prompts, items
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
            self._write(Path(folder), [work[place] for place in asked], [texts[place] for place in asked])
            dirs = replace(self._dirs, data=Path(folder), examples=Path(folder), users=Path(folder))
            user_texts = UserTexts(self._prompts, _lookup([histories[place] for place in asked]))
            job = Job(out, _QUIET)
            truncate_summaries(self._train, dirs, user_texts, job, splits=("test",), encoder=self._encoder)
            table = schema.read_table(out / "users.parquet", schema.USER_SUMMARIES).sort_by("example_id")
        for place, text in zip(asked, table["summary"].to_pylist(), strict=True):
            shown[place] = text
        return shown

    def _write(self, folder: Path, work: Sequence[UserWork], texts: Sequence[str]) -> None:
        """Write the tables of a data folder whose examples are ``work``, in order, and their USER_SUMMARIES."""
        inline: dict[Candidate, str] = {}
        pairs = [
            (number, self._items.ids[one.place] if one.place >= 0 else inline.setdefault(one, _id(len(inline))))
            for number, user in enumerate(work)
            for one in user.candidates
        ]
        numbers = range(len(work))
        places = sorted({one.place for user in work for one in user.candidates if one.place >= 0})
        beside = {"item_id": list(inline.values()), "title": [one.title for one in inline]}
        items = pa.concat_tables([_filled(schema.ITEMS, beside), self._items.table.take(pa.array(places, pa.int64()))])
        schema.write_table(items.sort_by("item_id"), schema.ITEMS, folder / "items.parquet")
        users = [one.user_id for one in work]
        _table(folder / "examples.parquet", schema.EXAMPLES, {
            "example_id": list(numbers), "split": ["test"] * len(work), "user_id": users,
            "history": [[] for _ in numbers], "timestamp": [0] * len(work),
        })  # fmt: skip
        columns: dict[str, Sequence[object]] = {
            "example_id": [number for number, _ in pairs], "item_id": [item for _, item in pairs],
        }  # fmt: skip
        _table(folder / "candidates.parquet", schema.CANDIDATES, {**columns, "label": [0] * len(pairs)})
        _table(folder / "users.parquet", schema.USER_SUMMARIES, {"example_id": list(numbers), "summary": list(texts)})
        copy_attributes(self._dirs.data, folder, [item for _, item in pairs], users)


def _lookup(
    histories: Sequence[Sequence[HistoryItem]],
) -> Callable[[pa.Table], Sequence[Sequence[HistoryItem]]]:
    return lambda examples: [histories[number] for number in examples["example_id"].to_pylist()]


def _id(number: int) -> str:
    return f"\0{number:09}"  # no id of a catalogue begins so


def _table(path: Path, columns: pa.Schema, values: Mapping[str, Sequence[object]]) -> None:
    schema.write_table(_filled(columns, values), columns, path)


def _filled(columns: pa.Schema, values: Mapping[str, Sequence[object]]) -> pa.Table:
    """Return a table of ``values``; columns that are not among them say nothing."""
    rows = len(next(iter(values.values())))
    # What no prompt shows, such as whether lists may have an item, says nothing here.
    nothing = {field.name: None if field.nullable else _EMPTY[str(field.type)] for field in columns}
    arrays = [pa.array(values.get(field.name, [nothing[field.name]] * rows), field.type) for field in columns]
    return pa.table(arrays, schema=columns)
