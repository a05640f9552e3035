"""What a template may use: the names of the templates and of their variables."""

from dataclasses import dataclass

IMAGE_PLACEHOLDER = "<image>"

VARIABLES = {
    "item_summary": ("title", "text", "image"),
    "user_preference": ("previous", "items"),
    "history": ("items",),
    "recommend": ("preference", "title", "image"),
}
"""Every template that msr renders, and the variables it may use."""

TEMPLATE_NAMES = tuple(VARIABLES)


@dataclass(frozen=True)
class HistoryItem:
    """One item of a user's history, as a template sees it."""

    title: str
    summary: str = ""
