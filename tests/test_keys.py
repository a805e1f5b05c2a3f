"""The keys of what is stored."""

import asyncpg

from logagg.sinks.store import Store

ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


async def test_what_is_in_is_known(store: Store) -> None:
    assert await store.keys.known([ONE, TWO]) == set()
    await store.keys.add([TWO, ONE])
    await store.keys.add([ONE, THREE])
    assert await store.keys.known([ONE, TWO, b"4" * 16]) == {ONE, TWO}
    assert await store.keys.known([]) == set()


async def test_a_key_that_comes_again_keeps_its_time(store: Store, sql: asyncpg.Connection) -> None:
    await store.keys.add([ONE])
    before = await sql.fetchval("select written_at from keys")
    await store.keys.add([ONE, ONE])
    assert await sql.fetch("select written_at from keys") == [(before,)]
