"""The audit's checks, worked by hand: what each measures, when it speaks, and that it is silent on clean data."""

from dataclasses import replace

import numpy as np
import pytest

from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.audit import audited_data as sampling
from msr_adapter.data.audit.candidate_lists import check_labels, check_target_position
from msr_adapter.data.audit.heuristic_baselines import check_heuristics
from msr_adapter.data.audit.items import check_images, check_titles
from msr_adapter.data.audit.leakage import check_cold_items, check_time_leakage
from msr_adapter.data.audit.log_statistics import DAY_MS, check_history, check_log, check_timestamps, quantiles
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.audit.thresholds import RULES, severity
from tests.support.audited import NEW_YEAR, TEST, TRAIN, User, evidence, text, topics


def test_a_severity_is_the_gravest_whose_bound_is_reached() -> None:
    found = [severity("popularity-heuristic", value) for value in (0.5, 0.6, 0.749, 0.75, 0.95, 1.0)]
    assert found == [None, "info", "info", "warning", "error", "error"]
    assert severity("empty-titles", 0) is None
    assert severity("placeholder-image", 0.009) is None


def test_bounds_rise_with_severity() -> None:
    for rule in RULES:
        bounds = [bound for bound in (rule.info, rule.warning, rule.error) if bound is not None]
        assert bounds == sorted(set(bounds)), rule.topic


def test_quantiles_of_a_few_numbers() -> None:
    found = quantiles(np.array([1, 2, 3, 4, 10]))
    assert (found["mean"], found["min"], found["median"], found["75%"], found["max"]) == (4, 1, 3, 4, 10)
    assert quantiles(np.array([])) == {}


def test_the_log_by_hand() -> None:
    e = evidence([User(TRAIN, [0, 1, 2]), User(TRAIN, [0, 1]), User(TEST, [0, 2, 3])])
    found = check_log(e, Audit())
    assert (found["users"], found["items"], found["interactions"]) == (3, 4, 8)
    assert found["density"] == 8 / 12
    assert found["per_item"]["max"] == 3
    assert found["rare_items"] == 1.0
    assert topics(check_log, e) == {"rare-items": "info"}


def test_a_log_of_known_items_without_repeats_is_clean() -> None:
    users = [User(TRAIN, [0, 1, 2])] * 5
    assert topics(check_log, evidence(users), interactions_read=15) == {}
    repeated = topics(check_log, evidence(users), interactions_read=20, interactions_dropped_duplicate=5)
    assert repeated == {"repeated-pairs": "info"}


def test_short_histories_and_few_test_users() -> None:
    long, short = User(TEST, [0, 1, 2, 3]), User(TEST, [0, 1, 2])
    assert topics(check_history, evidence([long] * 400)) == {}
    assert topics(check_history, evidence([long] * 350)) == {"few-test-users": "info"}
    assert topics(check_history, evidence([long] * 50)) == {"few-test-users": "warning"}
    assert topics(check_history, evidence([long] * 280 + [short] * 120)) == {"short-history": "info"}
    assert topics(check_history, evidence([short] * 400)) == {"short-history": "warning"}
    assert check_history(evidence([long, short]), Audit())["test"]["mean"] == 2.5
    assert topics(check_history, evidence([User(TRAIN, [0, 1])])) == {}


def test_positions_are_no_clock() -> None:
    e = evidence([User(TEST, [0, 1, 2], times=[0, 1, 2])])
    assert topics(check_timestamps, e) == {"no-timestamps": "info"}
    assert check_time_leakage(e, Audit()) == {}
    assert "recency" not in check_heuristics(e, Audit())


@pytest.mark.parametrize("zone_ms", [0, 3_600_000])
def test_dates_are_told_whatever_their_time_zone(zone_ms: int) -> None:
    days = [NEW_YEAR + zone_ms + DAY_MS * day for day in range(3)]
    assert topics(check_timestamps, evidence([User(TEST, [0, 1, 2], times=days)])) == {"whole-days": "info"}
    one_moment = evidence([User(TEST, [0, 1, 2], times=[days[0]] * 3)])
    assert topics(check_timestamps, one_moment) == {"tied-times": "warning"}
    hours = [NEW_YEAR + zone_ms + (DAY_MS + 3_600_000) * day for day in range(3)]
    assert topics(check_timestamps, evidence([User(TEST, [0, 1, 2], times=hours)])) == {}


def test_targets_tied_with_the_item_before() -> None:
    tied, apart = [NEW_YEAR, NEW_YEAR + 7, NEW_YEAR + 7], [NEW_YEAR, NEW_YEAR + 5, NEW_YEAR + 9]
    e = evidence([User(TEST, [0, 1, 2], times=tied)] + [User(TEST, [0, 1, 2], times=apart)] * 3)
    audit = Audit()
    assert check_timestamps(e, audit)["tied_targets"] == 0.25
    assert audit.counts["interactions_with_tied_time"] == 1
    assert topics(check_timestamps, e) == {"tied-times": "warning"}
    early = [NEW_YEAR, NEW_YEAR, NEW_YEAR + 7]
    assert topics(check_timestamps, evidence([User(TEST, [0, 1, 2], times=early)])) == {}


def test_ties_that_the_split_leaves_out_are_no_finding() -> None:
    days = [NEW_YEAR, NEW_YEAR + DAY_MS, NEW_YEAR + DAY_MS]
    e = evidence([User(TEST, [0, 1, 2], times=days)])
    assert topics(check_timestamps, e) == {"whole-days": "info", "tied-times": "warning"}
    e = replace(e, split=SplitConfig(same_time="leave-out"))
    assert topics(check_timestamps, e) == {}
    assert check_timestamps(e, Audit())["tied_targets"] == 1.0


def test_ties_are_counted_across_the_parts_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [NEW_YEAR, NEW_YEAR, NEW_YEAR, NEW_YEAR + 1, NEW_YEAR + 1]
    for part in (1, 2, 3, 100):
        monkeypatch.setattr("msr_adapter.data.audit.log_statistics._SAMPLED", part)
        audit = Audit()
        check_timestamps(
            evidence([User(TEST, [0, 1, 2, 3, 4], times=times), User(TEST, [0, 1, 2, 3, 4], times=times)]), audit
        )
        assert audit.counts["interactions_with_tied_time"] == 6


def leaking(*targets: int) -> list[User]:
    trained = User(TRAIN, [0, 1, 2, 3], times=[NEW_YEAR + at for at in (10, 20, 30, 40)])
    return [trained, *(User(TEST, [0, 1], times=[NEW_YEAR, NEW_YEAR + at]) for at in targets)]


def test_leakage_is_the_share_of_training_later_than_the_target() -> None:
    found = check_time_leakage(evidence(leaking(25, 45)), Audit())
    assert (found["mean_share_later"], found["median_share_later"], found["tests_with_any"]) == (0.25, 0.25, 0.5)
    assert topics(check_time_leakage, evidence(leaking(25, 45))) == {"time-leakage": "warning"}
    assert topics(check_time_leakage, evidence(leaking(35, 45, 45, 45))) == {"time-leakage": "info"}
    assert topics(check_time_leakage, evidence(leaking(40, 45))) == {}


@pytest.mark.parametrize(
    ("kind", "reason"), [("user-holdout", "active at the same time"), ("leave-last-out", "at a different time")]
)
def test_leakage_is_explained_for_each_split(kind: str, reason: str) -> None:
    assert reason in text(check_time_leakage, evidence(leaking(5), kind=kind))


def test_cold_targets_and_negatives() -> None:
    trained = [User(TRAIN, [0, 1, 2, 3])]
    warm = [User(TEST, [0, 1], negatives=[2, 3])]
    assert topics(check_cold_items, evidence(trained + warm)) == {}
    cold = [User(TEST, [0, 5], negatives=[1, 2]), *warm, *warm, *warm]
    audit = Audit()
    assert check_cold_items(evidence(trained + cold), audit) == {"targets": 0.25, "negatives": 0.0}
    assert audit.counts["test_targets_unseen_in_training"] == 1
    assert topics(check_cold_items, evidence(trained + cold)) == {"cold-targets": "warning", "cold-gap": "warning"}
    strange = [User(TEST, [0, 1], negatives=[4, 2, 3, 2, 3, 2, 3])]
    assert topics(check_cold_items, evidence(trained + strange)) == {"cold-gap": "info"}
    assert "being unknown gives the negatives away" in text(check_cold_items, evidence(trained + strange))


def popular(*counts: int) -> list[User]:
    """Let training take item ``i`` ``counts[i]`` times."""
    filler = len(counts)
    return [User(TRAIN, [filler, item]) for item, count in enumerate(counts) for _ in range(count)]


def test_popularity_that_says_nothing_has_auc_one_half() -> None:
    tests = [User(TEST, [4, item], negatives=[(item + 1) % 3, (item + 2) % 3]) for item in range(3)]
    titles = ["a", "b", "c", "d", "e"]
    found = check_heuristics(evidence(popular(2, 2, 2) + tests, titles), Audit())
    assert found["popularity"] == {"auc": 0.5, "gauc": 0.5}
    assert found["title_overlap"] == {"auc": 0.5, "gauc": 0.5}
    assert "popularity-heuristic" not in topics(check_heuristics, evidence(popular(2, 2, 2) + tests, titles))


def test_popularity_by_hand() -> None:
    # Against counts 1 and 3, the target with 2 beats one of two; against 1 and 1, both.
    tests = [User(TEST, [5, 1], negatives=[0, 2]), User(TEST, [5, 1], negatives=[0, 3])]
    found = check_heuristics(evidence(popular(1, 2, 3, 1) + tests), Audit())
    assert found["popularity"] == {"auc": 0.75, "gauc": 0.75}
    assert (found["lists"], found["of"]) == (2, 2)
    assert topics(check_heuristics, evidence(popular(1, 2, 3, 1) + tests))["popularity-heuristic"] == "warning"


def test_a_heuristic_that_is_always_right_and_one_that_is_always_wrong() -> None:
    right = evidence([*popular(1, 5), User(TEST, [3, 1], negatives=[0])])
    wrong = evidence([*popular(5, 1), User(TEST, [3, 1], negatives=[0])])
    assert topics(check_heuristics, right)["popularity-heuristic"] == "error"
    assert "Popularity alone reaches AUC 1.00" in text(check_heuristics, right)
    assert topics(check_heuristics, wrong)["popularity-heuristic"] == "error"
    assert "Popularity alone, in reverse order, reaches AUC 1.00" in text(check_heuristics, wrong)


def test_recency_finds_what_was_taken_lately() -> None:
    trained = [
        User(TRAIN, [0, 1], times=[NEW_YEAR, NEW_YEAR + 500]),
        User(TRAIN, [3, 2], times=[NEW_YEAR, NEW_YEAR + 9]),
    ]
    test = [User(TEST, [3, 1], negatives=[0, 2, 4], times=[NEW_YEAR, NEW_YEAR + 501])]
    found = check_heuristics(evidence(trained + test), Audit())
    assert found["recency"] == {"auc": 1.0, "gauc": 1.0}
    early = [User(TEST, [3, 1], negatives=[0, 2], times=[NEW_YEAR, NEW_YEAR + 400])]
    assert check_heuristics(evidence(trained + early), Audit())["recency"]["auc"] == 0.0


def test_words_of_the_history_find_the_target() -> None:
    titles = ["red fox", "red dog", "blue sky", "blue sea"]
    e = evidence([User(TRAIN, [2, 3]), User(TEST, [0, 1], negatives=[2, 3])], titles)
    assert check_heuristics(e, Audit())["title_overlap"] == {"auc": 1.0, "gauc": 1.0}
    assert topics(check_heuristics, e)["title-heuristic"] == "error"


def test_without_training_or_titles_there_is_no_heuristic_to_test() -> None:
    e = evidence([User(TEST, [0, 1], negatives=[2])], titles=["", "", ""])
    assert check_heuristics(e, Audit()) == {"lists": 1, "of": 1}
    assert check_heuristics(evidence([User(TRAIN, [0, 1])]), Audit()) == {}


def test_the_lists_that_are_scored_are_bounded_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    users = [User(TEST, [0, 1, 2], negatives=list(range(3, 3 + n % 5)), place=n % 2 and 1) for n in range(40)]
    users = [user for user in users if len(user.negatives) >= user.place]
    monkeypatch.setattr(sampling, "LISTS", 7)
    lists = evidence(users).lists
    assert (len(lists), lists.of) == (7, sum(bool(user.negatives) for user in users))
    assert np.add.reduceat(lists.labels, lists.offsets[:-1]).tolist() == [1] * 7
    assert np.diff(lists.history_offsets).tolist() == [2] * 7
    assert len(lists.items) == len(lists.times) == lists.offsets[-1]
    assert np.array_equal(lists.items, evidence(users).lists.items)
    monkeypatch.setattr(sampling, "PAIRS", 6)
    assert len(evidence(users).lists) == 1


def test_lists_of_several_targets_are_scored_and_those_without_a_negative_or_a_target_are_not() -> None:
    for marked, scored in (([1, 1, 0], 2), ([1, 1, 1], 1), ([0, 0, 0], 1)):
        e = evidence([User(TEST, [0, 1], negatives=[2, 3]), User(TEST, [0, 1], negatives=[2, 3])])
        labels = e.candidates.label.copy()
        labels[:3] = marked
        e = replace(e, candidates=replace(e.candidates, label=labels))
        assert (len(e.lists), e.lists.of) == (scored, 2)


def test_clean_titles_are_no_finding() -> None:
    titles = ["red fox at night", "blue sea in summer", "old town hall", "grey cat on a roof"]
    assert topics(check_titles, evidence([User(TEST, [0, 1], negatives=[2, 3])], titles)) == {}


def test_equal_titles_whatever_their_case_and_punctuation() -> None:
    titles = ["Red Fox!", "red  fox", "old town", "grey cat"]
    e = evidence([User(TEST, [0, 3], negatives=[2])], titles)
    assert check_titles(e, Audit())["same"] == 0.5
    assert topics(check_titles, e) == {"same-titles": "warning"}
    assert "2 of 4 items have the title of another item (such as 'Red Fox!', 2 items)" in text(check_titles, e)


def test_nearly_equal_titles() -> None:
    titles = ["the red fox in the snow at night", "the red fox in snow at night", "old town", "grey cat", "blue sea"]
    found = check_titles(evidence([User(TEST, [2, 3], negatives=[4])], titles), Audit())
    assert (found["same"], found["nearly_same"], found["nearly_same_of"]) == (0.0, 0.4, 5)
    assert topics(check_titles, evidence([User(TEST, [2, 3], negatives=[4])], titles)) == {"near-titles": "warning"}


def test_a_negative_with_the_title_of_the_target() -> None:
    titles = ["red fox", "old town", "Red fox"]
    duplicate = evidence([User(TEST, [1, 0], negatives=[2])], titles)
    assert topics(check_titles, duplicate) == {"same-titles": "warning", "duplicate-negatives": "warning"}
    assert check_titles(duplicate, Audit())["lists_with_duplicate"] == 1.0
    nameless = evidence([User(TEST, [1, 0], negatives=[2])], ["", "old town", ""])
    assert "duplicate-negatives" not in topics(check_titles, nameless)


def test_images_without_a_title() -> None:
    users, rest = [User(TEST, [0, 1])], [f"thing{n}" for n in range(40)]
    assert topics(check_titles, evidence(users, ["", *rest], ["p", *[None] * 40])) == {"empty-titles": "info"}
    assert topics(check_titles, evidence(users, ["", "b"], ["p", "q"])) == {"empty-titles": "warning"}
    assert topics(check_titles, evidence(users, ["a", "b"], [None, None])) == {}
    none = evidence(users, ["", ""], [None, None])
    assert (check_titles(none, Audit()), topics(check_titles, none)) == ({"empty": 1.0}, {})


def test_images_of_several_items() -> None:
    users = [User(TEST, [0, 1])]
    own = [f"p{n}" for n in range(20)]
    assert topics(check_images, evidence(users, images=own, titles=["x"] * 20)) == {}
    shared = ["same", "same", *own[2:]]
    assert topics(check_images, evidence(users, images=shared, titles=["x"] * 20)) == {"same-images": "warning"}
    stock = ["none"] * 5 + own[5:]
    found = topics(check_images, evidence(users, images=stock, titles=["x"] * 20))
    assert found == {"placeholder-image": "warning", "same-images": "warning"}
    assert "5 items show the same image (images/none.png)" in text(
        check_images, evidence(users, images=stock, titles=["x"] * 20)
    )


def test_items_with_neither_title_nor_image() -> None:
    users = [User(TEST, [0, 1])]
    assert topics(check_images, evidence(users, ["", *"abc"], [None, *"pqr"])) == {"nothing-to-show": "warning"}
    assert topics(check_images, evidence(users, ["", "b"], [None, "p"])) == {"nothing-to-show": "error"}
    assert topics(check_images, evidence(users, ["", "b"], ["p", None])) == {}
    assert check_images(evidence(users, ["", "b"], [None, None]), Audit())["nothing_to_show"] == 0.5


def test_labels_are_counted_per_split() -> None:
    users = [User(TRAIN, [0, 1], [2]), User(TRAIN, [0, 1], [2]), User(TEST, [0, 1], [2, 3, 4])]
    found = check_labels(evidence(users), Audit())
    assert found == {
        "train": {"positives": 2, "negatives": 2}, "validation": {"positives": 0, "negatives": 0},
        "test": {"positives": 1, "negatives": 3},
    }  # fmt: skip
    assert topics(check_labels, evidence(users)) == {}
    assert topics(check_labels, evidence([User(TRAIN, [0, 1], [2, 3, 4, 5, 6])])) == {"label-balance": "info"}


def test_targets_that_always_stand_first() -> None:
    first = [User(TEST, [0, 1], [2, 3, 4]) for _ in range(40)]
    anywhere = [User(TEST, [0, 1], [2, 3, 4], place=n % 4) for n in range(40)]
    assert topics(check_target_position, evidence(first)) == {"target-position": "warning"}
    assert "first in its list for 100% of the test users (25% by chance)" in text(
        check_target_position, evidence(first)
    )
    assert topics(check_target_position, evidence(anywhere)) == {}
    assert check_target_position(evidence(anywhere), Audit())["mean_place"] == pytest.approx(0.5)
