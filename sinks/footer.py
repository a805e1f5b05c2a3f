"""The footer of a Parquet file: where its row groups are, in Thrift's compact protocol.

See `parquet.thrift` of https://github.com/apache/parquet-format and `doc/specs/thrift-compact-protocol.md` of
https://github.com/apache/thrift.
"""

from typing import Any

MAGIC = b"PAR1"

# Types of the compact protocol. The first two are values, too; the whole numbers of 16, 32 and 64 bits are all written
# as zigzag varints.
_TRUE, _FALSE, _BYTE, _I16, _I32, I64, _DOUBLE, _BINARY, LIST, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12
_WHOLE = (_I16, _I32, I64)

# Numbers of fields.
ROW_GROUPS = 4  # of FileMetaData
COLUMNS = 1  # of RowGroup
META = 3  # of ColumnChunk
OFFSETS = (9, 10, 11)  # of ColumnMetaData: data, index and dictionary pages

#: A struct: number of a field -> its type and its value.
Struct = dict[int, tuple[int, Any]]


def footer_at(file: bytes) -> int:
    """Return where the footer begins. Raises ValueError for what is no Parquet file."""
    at = len(file) - 8 - int.from_bytes(file[-8:-4], "little")
    if file[-4:] != MAGIC or at < len(MAGIC):
        message = f"{len(file)} bytes that are no Parquet file"
        raise ValueError(message)
    return at


def read_footer(file: bytes) -> Struct:
    """Return the FileMetaData. Raises ValueError or IndexError for what is none."""
    return _Reader(file[footer_at(file) : -8]).struct()


def row_groups(footer: Struct) -> list[Struct]:
    """Return the row groups, in their order."""
    groups: list[Struct] = footer[ROW_GROUPS][1][1]
    return groups


def chunks(group: Struct) -> list[Struct]:
    """Return the columns of a row group."""
    found: list[Struct] = group[COLUMNS][1][1]
    return found


def first_byte(chunk: Struct) -> int:
    """Return where a column of a row group begins."""
    meta = chunk[META][1]
    return min(int(meta[number][1]) for number in OFFSETS if number in meta)


class _Reader:
    """Reads the compact protocol, as much of it as Parquet uses: all but sets and maps."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> Struct:
        found: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            found[number] = (head & 15, self._value(head & 15))
        return found

    def _value(self, kind: int) -> Any:
        if kind in _WHOLE:
            return self._zigzag()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == STRUCT:
            return self.struct()
        if kind == LIST:
            return self._list()
        if kind == _BYTE:
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind in (_TRUE, _FALSE):
            return None
        message = f"type {kind} in a footer of Parquet"
        raise ValueError(message)

    def _list(self) -> tuple[int, list[Any]]:
        head = self._byte()
        size, kind = head >> 4, head & 15
        size = self._varint() if size == 15 else size
        if kind in (_TRUE, _FALSE):  # in a list, a byte each
            return kind, [self._byte() for _ in range(size)]
        return kind, [self._value(kind) for _ in range(size)]

    def _bytes(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


def write_struct(struct: Struct) -> bytes:
    """Return the bytes of a struct; one that it holds may be given as the bytes that this has written for it."""
    writer = _Writer()
    writer.struct(struct)
    return bytes(writer.out)


class _Writer:
    """Writes what `_Reader` reads."""

    def __init__(self) -> None:
        self.out = bytearray()

    def struct(self, struct: Struct) -> None:
        last = 0
        for number, (kind, value) in sorted(struct.items()):
            if 0 < number - last < 16:
                self.out.append((number - last) << 4 | kind)
            else:
                self.out.append(kind)
                self._zigzag(number)
            last = number
            self._value(kind, value)
        self.out.append(0)

    def _value(self, kind: int, value: Any) -> None:
        if kind in _WHOLE:
            self._zigzag(value)
        elif kind == _BYTE:
            self.out.append(value)
        elif kind == _DOUBLE:
            self.out += value
        elif kind == _BINARY:
            self._varint(len(value))
            self.out += value
        elif kind == LIST:
            self._list(*value)
        elif kind == STRUCT and isinstance(value, bytes):
            self.out += value
        elif kind == STRUCT:
            self.struct(value)

    def _list(self, kind: int, values: list[Any]) -> None:
        if len(values) < 15:
            self.out.append(len(values) << 4 | kind)
        else:
            self.out.append(15 << 4 | kind)
            self._varint(len(values))
        for value in values:
            self._value(_BYTE if kind in (_TRUE, _FALSE) else kind, value)

    def _varint(self, value: int) -> None:
        while value > 127:
            self.out.append(value & 127 | 128)
            value >>= 7
        self.out.append(value)

    def _zigzag(self, value: int) -> None:
        self._varint(value << 1 if value >= 0 else (-value << 1) - 1)
