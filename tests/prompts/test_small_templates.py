"""The prompts for small models: the question first, one line of titles, everything that the data may lack."""

from msr_adapter.config.bundled import template_folders
from msr_adapter.files import bundled
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.prompts.variables import Wording

ITEMS = [HistoryItem("Bread at home"), HistoryItem("", "a red boat"), HistoryItem("Ships")]


def small(**wording: str) -> Prompts:
    return Prompts(bundled("templates") / "small", Wording(**wording))


def test_they_are_a_bundled_set_without_a_fault() -> None:
    assert "small" in template_folders()
    assert not small().check()


def test_the_first_block_and_the_update() -> None:
    ask = "In one short sentence of your own words, say what kind of videos this person likes"
    titles = "Bread at home; (no title) (a red boat); Ships"
    assert small(noun="video").user_summary("", ITEMS) == f'{ask}. Begin with "They like".\nChosen: {titles}'
    assert small(noun="video", language="German").user_summary("They like tea.", ITEMS) == (
        f'{ask}, old and new. Write in German. Begin with "They like".\nOld: They like tea.\nNew: {titles}'
    )


def test_what_the_set_leaves_out_is_said_as_everywhere() -> None:
    assert small().recommend(user_summary="x", title="y", image=False) == Prompts().recommend(
        user_summary="x", title="y", image=False
    )
