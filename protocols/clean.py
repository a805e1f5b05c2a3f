"""Text that PostgreSQL takes: no NUL, no surrogate, valid UTF-8. What is not so becomes U+FFFD.

PostgreSQL refuses U+0000 in `text` and `jsonb`, and one refused row costs the whole COPY.
"""

import re
from typing import Any

#: What stands in the place of every byte or character that could not be kept.
REPLACEMENT = "\ufffd"

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Replace each NUL and each surrogate."""
    return _UNSTORABLE.sub(REPLACEMENT, text)


def to_text(data: bytes) -> tuple[str, bool]:
    """Decode UTF-8; the flag says that something was replaced, and so the bytes are worth keeping."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data.decode(errors="replace").replace("\0", REPLACEMENT), True
    if "\0" in text:
        return text.replace("\0", REPLACEMENT), True
    return text, False


def clean_value(value: Any) -> Any:
    """Clean every text in a JSON value, the keys too; a new value. Raises RecursionError when nested too deeply."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(key): clean_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_value(item) for item in value]
    return value
