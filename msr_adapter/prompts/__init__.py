"""What msr says to a model: Jinja templates, and the rule that text from the data is only ever data.

render                 `Prompts`: one method per template; training rows and scoring requests share it
variables              the templates' names and variables
attributes             columns of items and users as templates see them
neutralize             text from data and models can neither place an image nor act as a control token
check                  every problem of a template that can be known beforehand
template_files         a template's source and all that it refers to
sandbox                templates of others can call nothing but text, and they end
sandbox_budget         what one rendering may take, and what is left of it
sandbox_compiler       the code of a template, with calls that count what it does
stage_tables           what the stages' tables say of items and users
vectorized             the `recommend` prompts of a whole table, equal to `render`
answers                the texts that answer a question
vectorized_history     the `history` texts of a whole table, equal to `render`
template_dependencies  which part of a template depends on what
text_columns           texts by column: patterns filled row by row
"""

from msr_adapter.prompts.attributes import NOBODY, UserFields
from msr_adapter.prompts.neutralize import neutralise
from msr_adapter.prompts.render import Prompts
from msr_adapter.prompts.variables import TEMPLATE_NAMES, HistoryItem, Wording

__all__ = ["NOBODY", "TEMPLATE_NAMES", "HistoryItem", "Prompts", "UserFields", "Wording", "neutralise"]
