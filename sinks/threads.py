"""Threads for those who read: what a question decodes never stands in the queue before what a writer waits for.

Writers have those of `asyncio.to_thread`.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

#: As many as there are processors, for that is what decoding takes.
_READERS = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="read")


async def read_in_thread(work: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
    """Run a part of the work of a question in one of the readers' threads."""
    return await asyncio.get_running_loop().run_in_executor(_READERS, work, *arguments)
