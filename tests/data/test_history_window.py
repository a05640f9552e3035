"""Where histories begin that are cut: at any item, or at a multiple of a block."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.examples import assert_no_leak, make_examples
from msr_adapter.history_window import HistoryWindow
from tests.support.data_builders import Row, log_of, logs


@st.composite
def windows(draw: st.DrawFn) -> HistoryWindow:
    step = draw(st.integers(1, 6))
    return HistoryWindow(draw(st.integers(step, 20)), step)


def lengths(window: HistoryWindow, upto: int) -> list[int]:
    return [len(window.of(np.arange(number))) for number in range(upto)]


def test_by_hand() -> None:
    assert lengths(HistoryWindow(4), 8) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert lengths(HistoryWindow(7, 3), 14) == [0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 5, 6, 7]
    assert lengths(HistoryWindow(3, 3), 8) == [0, 1, 2, 3, 1, 2, 3, 1]
    assert HistoryWindow(7, 3).of(np.arange(10)).tolist() == [3, 4, 5, 6, 7, 8, 9]


@given(window=windows(), length=st.integers(0, 100))
def test_a_window_is_the_end_of_a_history_and_begins_at_a_block(window: HistoryWindow, length: int) -> None:
    kept = window.of(np.arange(length))
    assert kept.tolist() == list(range(length - len(kept), length))
    assert (length - len(kept)) % window.step == 0
    if length > window.longest:
        assert window.longest - window.step + 1 <= len(kept) <= window.longest
    else:
        assert len(kept) == length


@given(window=windows(), length=st.integers(0, 100))
def test_it_moves_once_in_a_block_and_what_is_left_out_never_comes_back(window: HistoryWindow, length: int) -> None:
    left_out = window.left_out(np.arange(length, length + window.step + 1))
    assert (np.diff(left_out) >= 0).all()
    assert len(np.unique(left_out)) <= 2
    assert left_out[-1] - left_out[0] in (0, window.step)


@settings(deadline=None)
@given(
    rows=logs(), step=st.integers(1, 4), more=st.integers(0, 3), targets=st.integers(1, 4),
    kind=st.sampled_from(["user-holdout", "leave-last-out", "temporal"]),
    same_time=st.sampled_from(["keep", "leave-out"]),
)  # fmt: skip
def test_all_splits_cut_at_blocks_of_what_came_before_the_target(
    rows: list[Row], step: int, more: int, targets: int, kind: str, same_time: str
) -> None:
    log = log_of(rows)
    moments = {"validation_from": 4, "test_from": 8} if kind == "temporal" else {}
    split = SplitConfig.model_validate(
        {"kind": kind, "max_history": step + more, "train_targets": targets, "same_time": same_time, **moments}
    )
    whole = make_examples(log, split.model_copy(update={"max_history": 1000}), 0)
    cut = make_examples(log, split, 0, history_step=step)
    assert_no_leak(log, cut)
    assert cut.target.tolist() == whole.target.tolist()
    assert cut.end.tolist() == whole.end.tolist()
    window = HistoryWindow(step + more, step)
    assert (cut.start - whole.start).tolist() == window.left_out(whole.end - whole.start).tolist()
    # What was cut is known all the same: which items are no candidates of a user, and which targets are repeats.
    assert cut.earlier()[1].tolist() == [row for start, end in zip(whole.start, cut.start, strict=True)
                                         for row in range(start, end)]  # fmt: skip


def test_a_step_of_one_is_the_window_of_items() -> None:
    window = HistoryWindow(5)
    for length in range(20):
        assert window.of(np.arange(length)).tolist() == list(range(length))[-5:]


@given(window=windows(), length=st.integers(1, 60))
def test_one_more_item_keeps_every_whole_block_unless_the_window_moves(window: HistoryWindow, length: int) -> None:
    def blocks(items: int) -> list[list[int]]:
        kept = window.of(np.arange(items))
        cut = [kept[place : place + window.step].tolist() for place in range(0, len(kept), window.step)]
        return [block for block in cut if len(block) == window.step]

    before, after = blocks(length), blocks(length + 1)
    moved = window.left_out(np.array([length, length + 1]))
    if moved[0] == moved[1]:
        assert after[: len(before)] == before
    else:
        assert after[: len(before) - 1] == before[1:]
