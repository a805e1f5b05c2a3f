"""Classes of protobuf messages from a small table, read by the library's C core: no protoc, no generated files.

For one byte of a text that is no UTF-8 the library refuses the whole body, and so one bad record would cost its
neighbours. So it has to be read by classes that have texts as bytes, which is the same on the wire, where those that
have them as texts say no; these are faster.
"""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message

from logagg.protocols.http import Malformed

#: Field name to its number and type: the name of a scalar type in a .proto file, or of a message of the
#: table. `[...]` around it is a repeated field, `|` in front of it a member of the message's one oneof, `value`.
Fields = Mapping[str, tuple[int, str]]

_SCALARS: Final = FieldDescriptorProto.Type.items()
_TYPES: Final = {name.removeprefix("TYPE_").lower(): number for name, number in _SCALARS}


def messages(package: str, table: Mapping[str, Fields], *, lenient: bool = False) -> dict[str, Any]:
    """Return a class for each message of the table, by name; lenient ones have texts as bytes, whatever these are.

    They live in a pool of their own, so they are in nobody's way, such as that of a program's generated classes.
    """
    file = FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in table.items():
        _describe(file.message_type.add(name=name), package, fields, "bytes" if lenient else "string")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in table}


def parse(kind: Any, body: bytes) -> Any:
    """Read a message of a class from `messages`. Raises Malformed for bytes that are none."""
    message: Message = kind()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise Malformed(f"body of {len(body)} bytes is no {kind.DESCRIPTOR.name} in protobuf: {error}") from None
    return message


def _describe(message: DescriptorProto, package: str, fields: Fields, text: str) -> None:
    if any(kind[0] == "|" for _, kind in fields.values()):
        message.oneof_decl.add(name="value")
    for name, (number, kind) in fields.items():
        field = message.field.add(name=name, number=number)
        repeated = kind[0] == "["
        field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if kind[0] == "|":
            field.oneof_index = 0
        kind = kind.strip("[]|").replace("string", text)
        if kind in _TYPES:
            field.type = _TYPES[kind]
        else:
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{kind}"
