"""What msr says to a model: Jinja templates, and the rule that text from the data is only ever data."""

from msr_adapter.prompts.neutralize import neutralise
from msr_adapter.prompts.render import Prompts
from msr_adapter.prompts.variables import TEMPLATE_NAMES, HistoryItem, Wording

__all__ = ["TEMPLATE_NAMES", "HistoryItem", "Prompts", "Wording", "neutralise"]
