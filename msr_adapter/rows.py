"""One candidate -> one prompt: the rows that training learns from and scoring asks about, rendered by one function."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.errors import StageError
from msr_adapter.generation.request import Image
from msr_adapter.prompts import Prompts

YES, NO = ANSWERS = ("Yes", "No")
"""What the recommender is trained to answer, and what is scored."""


@dataclass(frozen=True)
class Row:
    """One candidate of one example, as it is asked."""

    example_id: int
    item_id: str
    label: int
    prompt: str
    image: Image | None
    """The file that the prompt's placeholder stands for; its path starts with the data stage's folder."""


class CandidateRows(Sequence[Row]):
    """The candidates of one split in the order of CANDIDATES; a prompt is rendered when its row is taken."""

    def __init__(self, data_dir: Path, users_dir: Path, prompts: Prompts, split: str, *, images: bool) -> None:
        """Read the stage tables. With ``images`` false, no row has one (an ablation).

        Raises `StageError` if an example has no summary or a candidate is no item: a stage upstream is broken.
        """
        examples = schema.read_table(data_dir / "examples.parquet", schema.EXAMPLES)
        kept = examples.filter(pc.equal(examples["split"], split))["example_id"]
        table = schema.read_table(data_dir / "candidates.parquet", schema.CANDIDATES)
        table = table.filter(pc.is_in(table["example_id"], value_set=kept.combine_chunks()))
        items = schema.read_table(data_dir / "items.parquet", schema.ITEMS)
        place = pc.index_in(table["item_id"], value_set=items["item_id"].combine_chunks())
        self._data_dir, self._prompts = data_dir, prompts
        self._preferences = _preferences(users_dir, kept)
        _refuse_missing(len(kept) - len(self._preferences), place.null_count)
        self.examples: np.ndarray = table["example_id"].to_numpy()
        """Example of every row, ascending."""
        self.labels: np.ndarray = table["label"].to_numpy()
        self._place: np.ndarray = place.to_numpy()
        self._ids, self._titles = items["item_id"].to_pylist(), items["title"].to_pylist()
        self._files = _files(items) if images else [None] * len(items)

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]  # rows are rendered one by one
        item, example = self._place[index], int(self.examples[index])
        file = self._files[item]
        prompt = self._prompts.recommend(
            preference=self._preferences[example], title=self._titles[item], image=file is not None
        )
        image = Image(self._data_dir / file[0], file[1]) if file else None
        return Row(example, self._ids[item], int(self.labels[index]), prompt, image)

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))


def _preferences(users_dir: Path, kept: pa.ChunkedArray) -> dict[int, str]:
    table = schema.read_table(users_dir / "users.parquet", schema.USER_SUMMARIES)
    table = table.filter(pc.is_in(table["example_id"], value_set=kept.combine_chunks()))
    return dict(zip(table["example_id"].to_pylist(), table["summary"].to_pylist(), strict=True))


def _files(items: pa.Table) -> list[tuple[str, str] | None]:
    pairs = zip(items["image"].to_pylist(), items["image_digest"].to_pylist(), strict=True)
    return [(path, digest) if path is not None else None for path, digest in pairs]


def _refuse_missing(summaries: int, items: int) -> None:
    found = [f"{summaries} examples have no preference summary" if summaries else "",
             f"{items} candidates are no known items" if items else ""]  # fmt: skip
    if summaries or items:
        what = f"The stages do not fit together: {', '.join(filter(None, found))}"
        raise StageError(what, "files of different runs were mixed", "run again with --force data")
