"""How the store fails, and the one place that decides which way an error is."""

import contextlib
from collections.abc import Iterator

import asyncpg


class StoreError(Exception):
    """The store cannot do this; the message says why."""


class StoreUnavailable(StoreError):
    """Passing: nothing was written, try again later."""


class BlobDamaged(StoreError):
    """The packed form of a batch cannot be read; the message names the batch and the column."""


#: SQLSTATE classes of what is wrong with the data itself: data exception, integrity constraint, program limit.
_DATA_CLASSES = ("22", "23", "54")
#: What is raised when a value cannot be encoded at all.
UNENCODABLE = (TypeError, ValueError, OverflowError, AttributeError)
#: Everything that a server or the way to it can do to us.
_TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)


def is_poison(error: BaseException) -> bool:
    """Tell whether a COPY failed by its data, which will never go in; all else passes, or an operator can make it pass.

    asyncpg's InterfaceError may be a ValueError as well; it tells of the connection.
    """
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _DATA_CLASSES
    return isinstance(error, UNENCODABLE) and not isinstance(error, _TROUBLE)


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """Raise StoreUnavailable for whatever went wrong with the server or the way to it."""
    try:
        yield
    except _TROUBLE as error:
        said = "does not answer" if _of_connection(error) else "says"
        raise StoreUnavailable(f"PostgreSQL {said}: {reason(error)}") from error


def _of_connection(error: BaseException) -> bool:
    """Tell whether it is no answer of the server, but what became of the connection: SQLSTATE class 08, or none."""
    return not isinstance(error, asyncpg.PostgresError) or (error.sqlstate or "08").startswith("08")


def reason(error: BaseException) -> str:
    """Return one line that names the error."""
    state = f" ({error.sqlstate})" if isinstance(error, asyncpg.PostgresError) else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{state}: {text}" if text else type(error).__name__
