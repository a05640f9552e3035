import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from msr_adapter.synthetic import (
    COLOURS,
    GENRES,
    IMAGE_SIZE,
    MOTIFS,
    PATTERNS,
    SyntheticDataset,
    draw_image,
    generate,
    write_dataset,
)
from msr_adapter.synthetic.vocabulary import ADJECTIVES, PLACES


def small(seed: int = 3, **changes: float) -> SyntheticDataset:
    arguments = {"users": 40, "items": 60, "interactions_per_user": 8, "noise": 1.0} | changes
    return generate(**arguments, seed=seed)  # type: ignore[arg-type]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64)


def test_same_seed_same_dataset_other_seed_another() -> None:
    one, again, other = small(), small(), small(seed=4)
    assert one.items.equals(again.items)
    assert one.interactions.equals(again.interactions)
    assert one.draw("i07").tobytes() == again.draw("i07").tobytes()
    assert not one.interactions.equals(other.interactions)
    assert one.draw("i07").tobytes() != other.draw("i07").tobytes()


def test_tables_have_the_columns_and_types_of_a_log() -> None:
    dataset = small()
    assert {f.name: str(f.type) for f in dataset.items.schema} == {"item_id": "string", "title": "string"}
    kinds = {f.name: str(f.type) for f in dataset.interactions.schema}
    assert kinds == {"user_id": "string", "item_id": "string", "timestamp": "int64"}
    assert dataset.items["item_id"].to_pylist() == [f"i{n:02d}" for n in range(1, 61)]
    assert len(set(dataset.interactions["user_id"].to_pylist())) == 40


@settings(max_examples=25, deadline=None)
@given(
    users=st.integers(1, 30), items=st.integers(30, 90), length=st.integers(2, 20), noise=st.floats(0, 50),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_no_user_chooses_twice_and_time_moves_forward(
    users: int, items: int, length: int, noise: float, seed: int
) -> None:
    log = generate(users, items, length, noise, seed).interactions.to_pylist()
    for _, events in itertools.groupby(log, key=lambda row: row["user_id"]):
        rows = list(events)
        chosen = [row["item_id"] for row in rows]
        times = [row["timestamp"] for row in rows]
        assert len(set(chosen)) == len(chosen)
        assert abs(len(chosen) - length) <= length // 4
        assert all(early < late for early, late in itertools.pairwise(times))


def test_more_choices_than_items_is_refused() -> None:
    with pytest.raises(ValueError, match="different items"):
        generate(5, 30, 28, 1.0, 0)


def test_without_noise_users_take_what_they_like_best_in_order() -> None:
    dataset = small(noise=0.0)
    items = dataset.items["item_id"].to_pylist()
    for user in ("u01", "u17"):
        chosen = [row["item_id"] for row in dataset.interactions.to_pylist() if row["user_id"] == user]
        scores = dataset.true_preference([user] * len(items), items)
        best = sorted(items, key=dict(zip(items, -scores, strict=True)).__getitem__)
        assert chosen == best[: len(chosen)]


def auc_of_last_choice(dataset: SyntheticDataset) -> float:
    """Of the true preference: the last choice against all items the user never interacted with."""
    items, wins = dataset.items["item_id"].to_pylist(), []
    log = dataset.interactions.to_pylist()
    for user, events in itertools.groupby(log, key=lambda row: row["user_id"]):
        chosen = [row["item_id"] for row in events]
        others = [item for item in items if item not in chosen]
        scores = dataset.true_preference([user] * (len(others) + 1), [chosen[-1], *others])
        wins.append(float(np.mean(scores[0] > scores[1:])))
    return float(np.mean(wins))


def test_noise_lowers_what_even_the_oracle_can_know() -> None:
    aucs = [auc_of_last_choice(generate(150, 200, 8, noise, 1)) for noise in (0.0, 1.0, 3.0, 1e6)]
    assert aucs == sorted(aucs, reverse=True)
    assert aucs[0] == 1.0
    assert 0.9 < aucs[1] < 1.0
    assert abs(aucs[3] - 0.5) < 0.1


def share_explained(dataset: SyntheticDataset, facet: str) -> float:
    """Share of the variance of one user's preferences that lies between the words of ``facet``, averaged over users."""
    items = dataset.items["item_id"].to_pylist()
    codes = getattr(dataset.facets, facet)
    shares = []
    for user in sorted(set(dataset.interactions["user_id"].to_pylist())):
        scores = dataset.true_preference([user] * len(items), items)
        means = {code: scores[codes == code].mean() for code in set(codes.tolist())}
        shares.append(np.var([means[code] for code in codes.tolist()]) / np.var(scores))
    return float(np.mean(shares))


def test_preference_depends_on_the_image_and_on_the_title() -> None:
    dataset = generate(60, 400, 8, 1.0, 5)
    assert share_explained(dataset, "motif") > 0.3
    assert share_explained(dataset, "genre") > 0.2
    assert share_explained(dataset, "colour") > 0.03
    assert share_explained(dataset, "pattern") < 0.03


def test_preference_is_the_sum_of_what_the_user_likes_in_the_item() -> None:
    dataset = small()
    preferences, facets = dataset.preferences, dataset.facets
    by_hand = (
        preferences.motif[4, facets.motif[9]] + preferences.colour[4, facets.colour[9]]
        + preferences.genre[4, facets.genre[9]] + preferences.appeal[9]
    )  # fmt: skip
    assert dataset.true_preference(["u05"], ["i10"]).tolist() == [pytest.approx(by_hand)]
    with pytest.raises(KeyError):
        dataset.true_preference(["u99"], ["i10"])


def test_the_image_is_not_told_by_the_title() -> None:
    dataset = generate(5, 512, 8, 1.0, 2)
    seen = {*MOTIFS, *COLOURS, *PATTERNS}
    for title in dataset.items["title"].to_pylist():
        assert not seen & set(title.lower().replace(",", "").split())
    for facet in ("motif", "colour"):
        table = np.zeros((len(GENRES), 10))
        np.add.at(table, (dataset.facets.genre, getattr(dataset.facets, facet)), 1)
        used = table[:, table.sum(0) > 0] / 512
        expected = used.sum(1, keepdims=True) * used.sum(0, keepdims=True)
        assert 512 * ((used - expected) ** 2 / expected).sum() < 120  # chi-square; 63 degrees of freedom at most


def test_titles_are_unique_and_sequels_are_numbered() -> None:
    combinations = len(ADJECTIVES) * len(PLACES) * len(GENRES)
    titles = generate(1, 2 * combinations + 5, 2, 1.0, 0).items["title"].to_pylist()
    assert len(set(titles)) == len(titles)
    assert sum(" 2," in title for title in titles) == combinations
    assert sum(" 3," in title for title in titles) == 5


def test_images_are_small_rgb_that_differ_by_every_facet() -> None:
    def drawn(motif: int, colour: int, pattern: int) -> np.ndarray:
        return pixels(draw_image(motif, colour, pattern, np.random.default_rng(0)))

    image = draw_image(0, 0, 0, np.random.default_rng(0))
    assert (image.mode, image.size) == ("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    for facet, words in enumerate((MOTIFS, COLOURS, PATTERNS)):
        images = [drawn(*(code if place == facet else 1 for place in range(3))) for code in range(len(words))]
        for one, other in itertools.combinations(images, 2):
            assert np.abs(one - other).mean() > 4  # grey levels of 255


def test_a_nearest_neighbour_tells_motif_and_colour_of_unseen_images() -> None:
    rng = np.random.default_rng(0)
    looks = list(itertools.product(range(len(MOTIFS)), range(len(COLOURS))))
    known = np.stack([pixels(draw_image(m, c, 0, rng)).ravel() for m, c in looks for _ in range(12)])
    right = 0
    for number, (motif, colour) in enumerate(looks):
        drawn = pixels(draw_image(motif, colour, 0, rng)).ravel()
        right += int(np.argmin(((known - drawn) ** 2).sum(1)) // 12 == number)
    assert right / len(looks) > 0.8


def test_description_says_what_was_drawn() -> None:
    dataset = small()
    facets = dataset.facets
    expected = f"A {COLOURS[facets.colour[3]]} {MOTIFS[facets.motif[3]]} on {PATTERNS[facets.pattern[3]]}."
    assert dataset.describe("i04") == expected


def test_popularity_is_a_weak_predictor() -> None:
    dataset = generate(600, 400, 10, 1.0, 7)
    counts = np.bincount([int(item[1:]) - 1 for item in dataset.interactions["item_id"].to_pylist()], minlength=400)
    assert counts.std() > 1.3 * np.sqrt(counts.mean())  # more uneven than chance
    assert counts.max() < 600 / 5  # and no item that everybody takes


def test_a_written_dataset_reads_back(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    dataset = small()
    write_dataset(dataset, folder)
    with (folder / "interactions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{**row, "timestamp": int(row["timestamp"])} for row in rows] == dataset.interactions.to_pylist()
    with (folder / "items.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == dataset.items.to_pylist()
    with Image.open(folder / "images" / "i60.png") as image:
        assert image.tobytes() == dataset.draw("i60").tobytes()
