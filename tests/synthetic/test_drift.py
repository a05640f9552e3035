"""Tastes that drift, and users who are shown a part of the items: what makes the order of a log matter."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import SyntheticSourceConfig
from msr_adapter.heuristics.item_similarity import item_similarity
from msr_adapter.synthetic import Shopping, SyntheticDataset, generate
from msr_adapter.synthetic.choices import ChoiceLog, choice_log_odds, choose_in_turn
from msr_adapter.synthetic.drifting_preferences import let_drift
from msr_adapter.synthetic.user_preferences import sample_preferences
from msr_adapter.synthetic.vocabulary import COLOURS, GENRES, MOTIFS, sample_item_facets

NEGATIVES = 20


def bundled(name: str, **changes: float) -> SyntheticDataset:
    """Generate the dataset of a bundled pipeline, with other numbers where they are given."""
    pipeline = load_pipeline(name).pipeline
    source = pipeline.data.source
    assert isinstance(source, SyntheticSourceConfig)
    source = source.model_copy(update=changes)
    sizes = source.users, source.items, source.interactions_per_user
    return generate(*sizes, source.noise, pipeline.seed, Shopping(source.drift, source.offered))


class Shop:
    """A dataset in integer codes, and a list of the last choice and negatives for each user."""

    def __init__(self, dataset: SyntheticDataset) -> None:
        self.dataset, log = dataset, dataset.interactions
        self.user, self.item = (
            np.unique(log[name].to_numpy(), return_inverse=True)[1] for name in ("user_id", "item_id")
        )
        self.names = np.unique(log["item_id"].to_numpy())
        self.bounds = np.searchsorted(self.user, np.arange(self.user[-1] + 2))
        draws = np.random.default_rng(0)
        self.lists = np.array([
            [items[-1], *draws.choice(np.setdiff1d(np.arange(len(self.names)), items), NEGATIVES, replace=False)]
            for items in np.split(self.item, self.bounds[1:-1])
        ])  # fmt: skip

    def gauc(self, scores: np.ndarray) -> float:
        return float(((scores[:, :1] > scores[:, 1:]) + 0.5 * (scores[:, :1] == scores[:, 1:])).mean())

    def similarity(self, last: int, shuffled: bool = False) -> float:
        """Return the GAUC of item similarity to the last items of a history, learned from all logs but their ends."""
        kept = np.ones(len(self.user), dtype=bool)
        kept[self.bounds[1:] - 1] = False
        likeness = item_similarity(
            self.user[kept], self.item[kept], (len(self.bounds) - 1, len(self.names)), damping=3.0
        ).toarray()
        draws, rows = np.random.default_rng(1), []
        for row, items in zip(self.lists, np.split(self.item, self.bounds[1:-1]), strict=True):
            history = draws.permutation(items[:-1]) if shuffled else items[:-1]
            rows.append(likeness[np.ix_(history[-last:], row)].sum(axis=0))
        return self.gauc(np.array(rows))

    def counted(self, decay: float) -> float:
        """Return the GAUC of how often a candidate's words were chosen; each choice counts ``decay`` times the next."""
        facets, rows = self.dataset.facets, []
        for row, items in zip(self.lists, np.split(self.item, self.bounds[1:-1]), strict=True):
            history = items[:-1]
            weights = decay ** np.arange(len(history))[::-1]
            scores = np.zeros(len(row))
            for codes, worth in ((facets.motif, 1.0), (facets.colour, 0.3), (facets.genre, 0.85)):
                scores += worth * np.bincount(codes[history], weights, minlength=len(MOTIFS))[codes[row]]
            rows.append(scores)
        return self.gauc(np.array(rows))

    def oracle(self, place: int) -> float:
        """Return the GAUC of the true log-odds as they were at this place of each user's log."""
        ends = (self.bounds[1:] - 1) if place == -1 else self.bounds[:-1] + place
        log, width = self.dataset.interactions, NEGATIVES + 1
        users, times = (np.repeat(log[name].to_numpy()[ends], width) for name in ("user_id", "timestamp"))
        scores = self.dataset.choice_log_odds(users.tolist(), self.names[self.lists.ravel()].tolist(), times)
        return self.gauc(scores.reshape(-1, width))

    def liked_by_place(self) -> np.ndarray:
        """Return how much users like, at that time, what they choose first, second, ... on average."""
        log = self.dataset.interactions
        liked = self.dataset.true_preference(
            log["user_id"].to_pylist(), log["item_id"].to_pylist(), log["timestamp"].to_pylist()
        )
        places = np.arange(len(self.user)) - self.bounds[self.user]
        return np.array([liked[places == place].mean() for place in range(places.max() + 1)])


@pytest.fixture(scope="module")
def drifting() -> Shop:
    return Shop(bundled("demo-drift"))


@pytest.fixture(scope="module")
def steady() -> Shop:
    return Shop(bundled("demo-drift", drift=0.0))


def test_the_demo_without_drift_is_the_one_whose_numbers_were_published() -> None:
    demo = bundled("demo")
    assert demo.shopping == Shopping()
    rows = "\n".join(f"{row['user_id']},{row['item_id']},{row['timestamp']}" for row in demo.interactions.to_pylist())
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == "0b0198d50330c872"


def test_order_matters_where_tastes_drift_and_only_there(drifting: Shop, steady: Shop) -> None:
    assert drifting.similarity(3) > drifting.similarity(3, shuffled=True) + 0.06
    assert steady.similarity(3) == pytest.approx(steady.similarity(3, shuffled=True), abs=0.025)
    # Where tastes stay, every item of a history tells as much; where they drift, the oldest tell next to nothing.
    assert steady.similarity(99) > steady.similarity(3) + 0.08
    assert drifting.similarity(99) < drifting.similarity(3) + 0.03


def test_counts_that_forget_beat_plain_ones_where_tastes_drift_and_only_there(drifting: Shop, steady: Shop) -> None:
    assert drifting.counted(0.7) > drifting.counted(1.0) + 0.03
    assert steady.counted(0.7) < steady.counted(1.0)


def test_the_oracle_knows_the_taste_of_the_targets_moment(drifting: Shop, steady: Shop) -> None:
    assert drifting.oracle(-1) > 0.97
    assert drifting.oracle(0) < drifting.oracle(-1) - 0.2
    assert steady.oracle(0) == pytest.approx(steady.oracle(-1), abs=1e-3)


def test_choices_are_not_listed_best_first(drifting: Shop) -> None:
    listed_best_first = Shop(bundled("demo")).liked_by_place()
    assert listed_best_first[0] > listed_best_first[9] + 2
    liked = drifting.liked_by_place()
    assert abs(liked[:3].mean() - liked[7:10].mean()) < 0.5


def test_nobody_chooses_twice_and_lengths_are_as_asked() -> None:
    for shopping in (Shopping(0.5, 0.01), Shopping(0.0, 0.3), Shopping(1.0, 1.0)):
        log = generate(30, 30, 24, 1.0, 5, shopping).interactions
        pairs = set(zip(log["user_id"].to_pylist(), log["item_id"].to_pylist(), strict=True))
        assert len(pairs) == log.num_rows
        lengths = np.unique(log["user_id"].to_numpy(), return_counts=True)[1]
        assert (lengths.min() >= 18, lengths.max() <= 30) == (True, True)
        assert log.equals(generate(30, 30, 24, 1.0, 5, shopping).interactions)


def test_a_change_brings_a_new_first_favourite_and_the_first_becomes_the_second() -> None:
    generator = np.random.default_rng(2)
    start = sample_preferences(4000, 5, generator)
    drifting = let_drift(start, 3, 0.3, generator)
    assert np.array_equal(drifting.at(np.arange(4000), np.zeros(4000, int)).motif, start.motif)
    for facet, words in (("motif", MOTIFS), ("colour", COLOURS), ("genre", GENRES)):
        before, after = drifting.favourites[facet][0], drifting.favourites[facet][1]
        changed = (before != after).any(axis=1)
        assert changed.mean() == pytest.approx(0.3, abs=0.03)
        assert np.array_equal(after[changed, 1], before[changed, 0])
        assert (after[changed, :1] != before[changed]).all()
        # All other words are equally probable, whichever two were the favourites.
        shares = np.bincount(after[changed, 0], minlength=len(words)) / changed.sum()
        assert shares == pytest.approx(np.full(len(words), 1 / len(words)), abs=0.05)
    still = let_drift(start, 3, 0.0, generator).favourites["genre"]
    assert np.array_equal(still[0], still[2])


@settings(max_examples=60, deadline=None)
@given(
    odds=st.lists(st.floats(-25, 25), min_size=3, max_size=40), offered=st.floats(0.01, 0.999), taken=st.integers(0, 2)
)
def test_probabilities_of_a_choice_are_exact(odds: list[float], offered: float, taken: int) -> None:
    """They sum to the probability that anything is shown, and they have the order of the odds."""
    every, chosen = np.array(odds), np.arange(taken)
    free = np.arange(taken, len(odds))
    found = choice_log_odds(every, free, chosen, offered)
    # 0.5 is the step of the integral's grid.
    total = np.exp(found).sum() * 0.5 * offered
    assert total == pytest.approx(-np.expm1(len(free) * np.log1p(-offered)), rel=1e-6)
    ranked = np.argsort(every[free], kind="stable")
    assert (np.diff(found[ranked]) > -1e-6).all()


def test_probabilities_are_those_of_the_choices_that_are_drawn() -> None:
    users, offered, noise, generator = 20_000, 0.3, 0.7, np.random.default_rng(4)
    facets, one = sample_item_facets(30, generator), sample_preferences(1, 30, generator)
    same = type(one)(*(np.repeat(table, users, axis=0) for table in (one.motif, one.colour, one.genre)), one.appeal)
    drawn = choose_in_turn(
        let_drift(same, 2, 0.0, generator), facets, np.full(users, 1), noise, offered, generator
    )  # fmt: skip
    shares = np.bincount(np.concatenate(drawn), minlength=30) / users
    odds = one.affinity(np.array(0), facets, np.arange(30)) / noise
    log_odds = choice_log_odds(odds, np.arange(30), np.array([], int), offered)
    probable = np.exp(log_odds - np.logaddexp.reduce(log_odds))
    assert (np.abs(shares - probable) < 4.5 * np.sqrt(probable / users) + 1e-4).all()
    # Nearly all is shown: the softmax itself.
    nearly = choice_log_odds(odds, np.arange(30), np.array([], int), 1 - 1e-12)
    assert nearly - nearly.max() == pytest.approx(odds - odds.max(), abs=1e-5)


def test_a_time_is_found_in_its_users_log() -> None:
    log = ChoiceLog(np.array([0, 3, 5]), np.array([7, 8, 9, 7, 6]), np.array([10, 20, 30, 10, 11]))
    users, times = np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([5, 10, 20, 25, 99, 10, 11, 12])
    assert log.numbers(users, times).tolist() == [0, 0, 1, 2, 2, 0, 1, 1]
    assert log.before(0, 2).tolist() == [7, 8]
    assert log.before(1, 0).tolist() == []
