"""What templates say of items and users beside titles and summaries: attributes, texts, categories."""

from functools import cached_property

from msr_adapter.config.schema import ItemSummariesConfig
from msr_adapter.prompt_catalogue import PromptCatalogue
from msr_adapter.prompts import HistoryItem, Prompts, UserFields
from msr_adapter.prompts.stage_tables import ItemTable, UserTable
from msr_adapter.stage_arguments import StageDirs
from msr_adapter.summarize.items import described_fields


class PromptFields:
    """Items by row of ITEMS and users by id, as the stages tell templates of them.

    Memory: the columns that templates look at. A user in no table, and an item of no catalogue, have no attributes.
    """

    def __init__(self, prompts: Prompts, dirs: StageDirs, summarizing: ItemSummariesConfig) -> None:
        self._prompts, self._dirs, self._summarizing = prompts, dirs, summarizing
        used = prompts.fields("user_summary", "history")
        self._read, self._readers = ItemTable(dirs.data, used), UserTable(dirs.data, used)
        catalogue = PromptCatalogue(dirs.data, images=False, items_dir=dirs.items)
        self._asked = catalogue.items(prompts) if prompts.fields("recommend").item else None
        self._askers = catalogue.users(prompts)

    def in_history(self, place: int, summary: str) -> HistoryItem:
        """Return an item as histories tell of it."""
        return self._read.at(place, summary)

    def as_candidate(self, place: int, title: str) -> HistoryItem | None:
        """Return an item as the question tells of it, -1 for one of no catalogue; None where it does not."""
        if self._asked is None:
            return None
        return self._asked.at(place) if place >= 0 else self._asked.unknown(title)

    def to_describe(self, place: int) -> HistoryItem | None:
        """Return an item as the item summariser is told of it; None where its templates do not look at more."""
        return self._described.at(place) if self._described else None

    def reader(self, user_id: str) -> UserFields:
        """Return a user as the user summariser is told of them; an empty id is nobody's."""
        return self._readers.of(user_id)

    def asker(self, user_id: str) -> UserFields:
        """Return a user as the question tells of them."""
        return self._askers.of(user_id)

    @property
    def somebody(self) -> str:
        """The id of a user whose attributes are known, to try templates with; empty where there is none."""
        return self._readers.somebody or self._askers.somebody

    @cached_property
    def _described(self) -> ItemTable | None:
        used = described_fields(self._summarizing, self._prompts)
        return ItemTable(self._dirs.data, used) if used.item else None
