"""Where the columns of a Parquet file lie, as its footer says.

Why not PyArrow: it ends the whole process where the statistics of a column are damaged, in C++, where Python catches
nothing. Only what is asked for is looked at here; the format is Thrift's compact protocol, described with Parquet's.
"""

from collections.abc import Callable
from pathlib import Path

from msr_adapter.filesystem import open_file

_MAGIC = b"PAR1"
_DEEPEST = 30
"""A footer nests about ten deep."""
_LARGEST = 256 << 20
"""Bytes of a footer that are looked at."""
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = 1, 2, 3, 7, 8, 9, 10, 11, 12, 13
_INTEGERS = (4, 5, 6)
# Field numbers of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _METADATA, _SIZE, _DATA_PAGE, _DICTIONARY_PAGE = 4, 1, 3, 7, 9, 11


def column_places(path: Path) -> list[tuple[int, int]]:
    """Return (first byte, number of bytes) of every column of every row group; `ValueError` where the footer is none.

    Takes time in proportion to the footer's length: some 50 us a column of a row group.
    """
    with open_file(path) as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        end = file.read(8)
        length = int.from_bytes(end[:4], "little")
        if end[4:] != _MAGIC or length > min(size - 8, _LARGEST):
            raise ValueError("no footer of Parquet")
        file.seek(size - 8 - length)
        footer = _Footer(file.read(length))
    places: list[tuple[int, int]] = []

    def metadata(kind: int) -> None:
        found: dict[int, int] = {}
        numbers = {field: _keep(footer, found, field) for field in (_SIZE, _DATA_PAGE, _DICTIONARY_PAGE)}
        footer.struct(kind, numbers)
        places.append((found.get(_DICTIONARY_PAGE, 0) or found.get(_DATA_PAGE, 0), found.get(_SIZE, 0)))

    def column(kind: int) -> None:
        footer.struct(kind, {_METADATA: metadata})

    def row_group(kind: int) -> None:
        footer.struct(kind, {_COLUMNS: lambda kind: footer.list(kind, column)})

    try:
        footer.struct(_STRUCT, {_ROW_GROUPS: lambda kind: footer.list(kind, row_group)})
    except IndexError:
        raise ValueError("the footer ends too early") from None
    return places


def _keep(footer: "_Footer", found: dict[int, int], field: int) -> Callable[[int], None]:
    def keep(kind: int) -> None:
        if kind not in _INTEGERS:
            raise ValueError("a place is not a number")
        found[field] = footer.integer()

    return keep


class _Footer:
    """Bytes of Thrift's compact protocol, read from the front. Raises `ValueError`, or `IndexError` at the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, kind: int, wanted: dict[int, Callable[[int], None]], depth: int = 0) -> None:
        """Pass a struct, handing the kinds of the wanted fields to those who read them."""
        if kind != _STRUCT or depth > _DEEPEST:
            raise ValueError("not the structure of a footer")
        field = 0
        while head := self._byte():
            kind = head & 15
            field = field + (head >> 4) if head >> 4 else self.integer()
            read = wanted.get(field)
            if read is not None:
                read(kind)
            else:
                self._skip(kind, depth + 1)

    def list(self, kind: int, read: Callable[[int], None]) -> None:
        """Read each element of a list."""
        if kind != _LIST:
            raise ValueError("not the structure of a footer")
        of, size = self._list_head()
        for _ in range(size):
            read(of)

    def integer(self) -> int:
        """Return a number with a sign."""
        number = self._number()
        return (number >> 1) ^ -(number & 1)

    def _list_head(self) -> tuple[int, int]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._number()
        self._require(size)
        return head & 15, size

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _number(self) -> int:
        number = shift = 0
        while shift < 70:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
        raise ValueError("a number is too long")

    def _require(self, size: int) -> None:
        # Each element takes a byte at least: what claims more is damaged, and would be passed for ever.
        if size > len(self._data) - self._at:
            raise ValueError("the footer ends too early")

    def _pass(self, size: int) -> None:
        self._require(size)
        self._at += size

    def _skip(self, kind: int, depth: int, *, element: bool = False) -> None:
        if kind in (_TRUE, _FALSE):
            self._pass(1 if element else 0)  # a field's truth is in its kind
        elif kind == _BYTE:
            self._pass(1)
        elif kind in _INTEGERS:
            self._number()
        elif kind == _DOUBLE:
            self._pass(8)
        elif kind == _UUID:
            self._pass(16)
        elif kind == _BINARY:
            self._pass(self._number())
        elif kind in (_LIST, _SET):
            of, size = self._list_head()
            for _ in range(size):
                self._skip(of, depth + 1, element=True)
        elif kind == _MAP:
            size = self._number()
            self._require(size)
            kinds = self._byte() if size else 0
            for _ in range(size):
                self._skip(kinds >> 4, depth + 1, element=True)
                self._skip(kinds & 15, depth + 1, element=True)
        else:
            self.struct(kind, {}, depth)
