"""The smallest pipeline that is valid, and files beside it."""

from pathlib import Path

MINIMAL = """\
data:
  source: {kind: synthetic}
summarize:
  items: {model: {path: tiny}}
  users: {model: {path: tiny}}
train:
  model: {path: tiny}
evaluate:
  protocol: next-item
"""


def write(path: str, text: str) -> str:
    """Write a file, its folders too, and return its path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return path
