"""One JSON array of objects, as some tools write a table."""

import json
from collections.abc import Iterator
from pathlib import Path

from msr_adapter.text_tables.opening import open_text


def array_elements(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every element of a file that is one JSON array; `ValueError` where it is none."""
    with open_text(path) as file:
        text = file.read()
    decoder, blank = json.JSONDecoder(), " \t\r\n"
    place, line, counted = len(text) - len(text.lstrip(blank)) + 1, 1, 0
    while True:
        place = _skip(text, place)
        if text[place : place + 1] == "]":
            break
        line += text.count("\n", counted, place)
        counted = place
        _, end = decoder.raw_decode(text, place)
        yield line, text[place:end]
        place = _skip(text, end)
        if text[place : place + 1] == ",":
            place += 1
        elif text[place : place + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
    if text[place + 1 :].strip(blank):
        raise json.JSONDecodeError("Extra data", text, place + 1)


def _skip(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\t", "\r", "\n"):
        place += 1
    return place
