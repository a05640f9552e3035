"""A large synthetic run up to the evaluate stage: for the size of the report and the time it takes to open."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from msr_adapter import schema
from tests.support.judged_run import Run

SIZE, HISTORY, BLOCK, WORDS = 21, 9, 3, 80
_SIDE = 160


def make_many(root: Path, users: int = 5_000, items: int = 2_016) -> Run:
    """Write ``users`` test examples with 21 candidates, nine items of history and three texts of 80 words each."""
    run, generator = Run(root, users), np.random.default_rng(0)
    ids = np.array([f"{number:06d}" for number in range(items)])
    words = np.array(["".join(generator.choice(list("abcdeghilmnoprstu"), 6)) for _ in range(2_000)])
    _write_items(run, ids, words, generator)
    _write_users(run, ids, words, generator)
    candidates = {
        "example_id": np.repeat(np.arange(users), SIZE),
        "item_id": ids[_distinct(generator, users, SIZE, items)].ravel(),
        "label": np.eye(SIZE, dtype=np.int8)[generator.integers(0, SIZE, users)].ravel(),
    }
    schema.write_table(
        pa.table(candidates, schema=schema.CANDIDATES), schema.CANDIDATES, run.data / "candidates.parquet"
    )
    logit = generator.standard_normal(users * SIZE) + 1.5 * candidates["label"]
    scores = {key: candidates[key] for key in ("example_id", "item_id")}
    scores |= {"score": 1 / (1 + np.exp(-logit)), "logit": logit, "answer_mass": np.ones(len(logit))}
    scores["bounded"] = np.zeros(len(logit), dtype=bool)
    schema.write_table(pa.table(scores, schema=schema.SCORES), schema.SCORES, run.trained / "scores.parquet")
    return run


def _distinct(generator: np.random.Generator, rows: int, columns: int, items: int) -> np.ndarray:
    """Draw (rows, columns) item numbers; a row's are apart, so no list has an item twice."""
    step = items // columns
    return (np.arange(columns) * step + generator.integers(0, step, (rows, columns))) % items


def _write_items(run: Run, ids: np.ndarray, words: np.ndarray, generator: np.random.Generator) -> None:
    (run.data / "images").mkdir(parents=True)
    for item in ids:
        (run.data / "images" / f"{item}.jpg").write_bytes(_image(generator))
    titles = [" ".join(generator.choice(words, 8)) for _ in ids]
    columns = {"item_id": ids, "title": titles, "image": [f"images/{item}.jpg" for item in ids]}
    columns |= {"image_digest": columns["image"], "popularity": generator.integers(0, 500, len(ids))}
    columns |= {"text": [""] * len(ids), "category": [None] * len(ids), "more_images": [None] * len(ids)}
    columns |= dict.fromkeys(("in_log", "listed"), [True] * len(ids))
    schema.write_table(pa.table(columns, schema=schema.ITEMS), schema.ITEMS, run.data / "items.parquet")
    summaries = pa.table({"item_id": ids, "summary": [" ".join(generator.choice(words, 40)) for _ in ids]})
    schema.write_table(summaries, schema.ITEM_SUMMARIES, run.root / "items" / "items.parquet")


def _image(generator: np.random.Generator) -> bytes:
    """Return a JPEG with soft shapes and grain, as heavy as a photograph of its size."""
    coarse = Image.fromarray(generator.integers(0, 255, (7, 7, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)).astype(np.int16)
    grain = np.clip(soft + generator.integers(-12, 12, soft.shape, dtype=np.int16), 0, 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(grain).save(target, "JPEG", quality=85)
    return target.getvalue()


def _write_users(run: Run, ids: np.ndarray, words: np.ndarray, generator: np.random.Generator) -> None:
    number = np.arange(run.users)
    examples = {
        "example_id": number,
        "split": ["test"] * run.users,
        "user_id": [f"user-{user:05d}" for user in number],
        "history": ids[_distinct(generator, run.users, HISTORY, len(ids))].tolist(),
        "timestamp": number,
    }
    schema.write_table(pa.table(examples, schema=schema.EXAMPLES), schema.EXAMPLES, run.data / "examples.parquet")
    blocks = HISTORY // BLOCK
    texts = [" ".join(row) for row in generator.choice(words, (run.users * blocks, WORDS))]
    steps = {
        "example_id": np.repeat(number, blocks),
        "step": np.tile(np.arange(1, blocks + 1), run.users),
        "items_read": np.tile(np.arange(1, blocks + 1) * BLOCK, run.users),
        "summary": texts,
    }
    schema.write_table(pa.table(steps), schema.USER_STEPS, run.root / "users" / "steps.parquet")
    last = pa.table({"example_id": number, "summary": texts[blocks - 1 :: blocks]})
    schema.write_table(last, schema.USER_SUMMARIES, run.root / "users" / "users.parquet")
