"""Who may do what: every route, with each kind of token and without one."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from logagg.cli.main import cli
from logagg.collector import access
from logagg.protocols.json_columns import FEW
from logagg.query.grants import secret_of
from logagg.sinks import tokens

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from logagg.tests.daemons import Lines, RunningDaemon, Starter

#: Routes that anybody may ask, any token may, and what the others are for.
OPEN = {("GET", "/healthz"), ("GET", "/readyz")}
ADMIN = {("GET", "/metrics"), ("GET", "/alerts"), ("POST", "/alerts/a/test"), ("DELETE", "/sources")}
TOKENS = {
    "ingest": (["ingest"], [], []),
    "query": (["query"], [], []),
    "admin": (["admin"], [], []),
    "shop": (["ingest", "query", "admin"], ["shop"], []),
    "shops": (["ingest", "query"], ["shop", "till"], ["live"]),
}

PERIOD = access.PERIOD


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PERIOD", 0.02)


@pytest.fixture
async def secrets(sql: asyncpg.Connection, start_daemon: Starter) -> tuple[RunningDaemon, dict[str, str]]:
    """A daemon, and the tokens that it knows of."""
    daemon = await start_daemon()
    made = {name: await tokens.create(sql, name, *how) for name, how in TOKENS.items()}
    await until(daemon, 401)
    for secret in made.values():
        await until(daemon, 200, secret)
    return daemon, made


async def until(daemon: RunningDaemon, status: int, secret: str = "") -> None:
    """Wait until the daemon knows of a change."""
    async with asyncio.timeout(20):
        while await asked(daemon, "GET", "/health", secret) != status:
            await asyncio.sleep(0.02)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"} if secret else {}


async def asked(daemon: RunningDaemon, method: str, path: str, secret: str = "", **more: Any) -> int:
    async with daemon.http.request(method, path, headers=bearer(secret), **more) as answer:
        return answer.status


async def routes(daemon: RunningDaemon, secret: str) -> set[tuple[str, str]]:
    """Every route of the document, and those that are not in it."""
    async with daemon.http.get("/openapi.json", headers=bearer(secret)) as answer:
        paths = (await answer.json())["paths"]
    shown = {
        (method.upper(), path.replace("{id}", "1").replace("{index}", "a").replace("{name}", "a"))
        for path in paths
        for method in paths[path]
    }
    hidden = {("GET", path) for path in ("/docs", "/redoc", "/openapi.json", "/assets/app.js", "/ready", "/_license")}
    return shown | hidden


async def test_who_may_do_what(secrets: tuple[RunningDaemon, dict[str, str]]) -> None:
    daemon, made = secrets
    every = await routes(daemon, made["query"])
    assert len(every) > 30
    for method, path in sorted(every):
        bare = await asked(daemon, method, path)
        wrong = await asked(daemon, method, path, "logagg_wrong")
        assert (bare, wrong) == ((200, 200) if (method, path) in OPEN else (401, 401)), (method, path)
        if (method, path) in OPEN:
            continue
        sends = method in ("POST", "PUT") and path != "/logs/search" and (method, path) not in ADMIN
        reads = method != "DELETE" and path.startswith(("/logs", "/sources")) and not sends
        needed = "ingest" if sends else "query" if reads else "admin" if (method, path) in ADMIN else None
        if path == "/logs/tail":
            path += "?last_event_id=none"
        for name in ("ingest", "query", "admin"):
            status = await asked(daemon, method, path, made[name])
            assert (status == 403) == (needed not in (None, name)), (method, path, name, status)
            assert status != 401
    assert await asked(daemon, "GET", "/metrics", made["shop"]) == 403  # tells of other services, too
    assert await asked(daemon, "DELETE", "/sources?service=till", made["shop"]) == 403


async def test_who_is_not_let_in_does_not_learn_what_there_is(
    secrets: tuple[RunningDaemon, dict[str, str]],
) -> None:
    daemon, made = secrets
    for method, path, status in (("GET", "/nothing", 404), ("PATCH", "/logs", 405), ("GET", "/logs/a/b", 404)):
        assert await asked(daemon, method, path) == await asked(daemon, method, path, "logagg_wrong") == 401
        assert await asked(daemon, method, path, made["ingest"]) == status


async def test_a_refusal_says_why_and_how_in_the_form_of_its_protocol(
    secrets: tuple[RunningDaemon, dict[str, str]],
) -> None:
    daemon, made = secrets
    async with daemon.http.get("/logs") as answer:
        assert (await answer.json()) == {"detail": "a token is needed; see `logagg token create`"}
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    async with daemon.http.get("/logs", headers=bearer("logagg_wrong")) as answer:
        assert (await answer.json()) == {
            "detail": "the token is not known, or was revoked; a new one is known within seconds"
        }
    async with daemon.http.get("/logs", headers=bearer(made["ingest"])) as answer:
        assert (await answer.json()) == {"detail": "token 'ingest' is for ingest, and this is for query"}
    async with daemon.http.post("/services/collector", data=b"{}") as answer:
        assert (answer.status, (await answer.json())["code"]) == (401, 2)
    async with daemon.http.post("/services/collector", data=b"{}", headers=bearer(made["query"])) as answer:
        assert await answer.json() == {"text": "token 'query' is for query, and this is for ingest", "code": 4}
    async with daemon.http.post("/_bulk", data=b"{}") as answer:
        assert (await answer.json())["error"]["type"] == "security_exception"
        assert "WWW-Authenticate" in answer.headers
    assert await daemon_metric(daemon, made["admin"], 'logagg_requests_refused_total{status="401"}') >= 3


async def test_each_kind_of_refusal_is_a_line_of_its_own(
    lines: Lines, secrets: tuple[RunningDaemon, dict[str, str]]
) -> None:
    daemon, made = secrets
    before = await daemon_metric(daemon, made["admin"], 'logagg_requests_refused_total{status="403"}')
    for _ in range(2):
        assert await asked(daemon, "GET", "/logs", "logagg_wrong") == 401
        assert await asked(daemon, "GET", "/logs", made["ingest"]) == 403
        assert await asked(daemon, "GET", "/metrics", made["query"]) == 403
        for path in ("/ingest", "/gelf"):
            body = b'{"service":"db","message":"m","short_message":"m","_service":"db"}'
            assert await asked(daemon, "POST", path, made["shop"], data=body) == 403, path
    assert await daemon_metric(daemon, made["admin"], 'logagg_requests_refused_total{status="403"}') == before + 8
    told = [line for line in lines if line["event"] == "a request was refused"]
    assert all(line["peer"] == "127.0.0.1" for line in told)
    assert {line["reason"] for line in told} == {
        "a token is needed; see `logagg token create`",
        "the token is not known, or was revoked; a new one is known within seconds",
        "token 'ingest' is for ingest, and this is for query",
        "token 'query' is for query, and this is for admin",
        "token 'shop' is for service shop, and a record has service 'db'",
    }


async def daemon_metric(daemon: RunningDaemon, secret: str, name: str) -> float:
    async with daemon.http.get("/metrics", headers=bearer(secret) | {"Accept": "text/plain"}) as answer:
        lines = (await answer.text()).splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


async def test_the_forms_that_senders_know(secrets: tuple[RunningDaemon, dict[str, str]]) -> None:
    daemon, made = secrets

    def coded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    secret = made["ingest"]
    forms = [f"Bearer {secret}", f"bearer  {secret}", f"Splunk {secret}", f"Basic {coded(f'any:{secret}')}"]
    forms += [f"Basic {coded(f'{secret}:')}", f"ApiKey {coded(f'id:{secret}')}", f"ApiKey {secret}"]
    for form in forms:
        async with daemon.http.post("/ingest", data=b'{"message":"m"}', headers={"Authorization": form}) as answer:
            assert answer.status == 200, form
    for form in ("", "Bearer", "Basic !", f"Digest {secret}", f"Basic {coded('name:')}", "ApiKey x", "Bearer \xff"):
        assert secret_of({"Authorization": form}) != secret
        async with daemon.http.post("/ingest", data=b"{}", headers={"Authorization": form}) as answer:
            assert answer.status == 401, form


async def test_a_token_for_some_services_writes_and_reads_no_others(
    secrets: tuple[RunningDaemon, dict[str, str]],
) -> None:
    daemon, made = secrets
    given = [{"message": f"{service} {environment}", "service": service, "environment": environment}
             for service in ("shop", "till", "bank") for environment in ("live", "test")]  # fmt: skip
    assert await asked(daemon, "POST", "/ingest", made["ingest"], json=given) == 200
    own = [{"message": "unnamed"}] * FEW  # by columns
    for path in ("/ingest", "/logs/batch-ingest"):
        named = [log | {"level": "INFO", "source": "s"} for log in own]
        assert await asked(daemon, "POST", path, made["shop"], json=named) == 200
        async with daemon.http.post(
            path, json=[*named, named[0] | {"service": "bank"}], headers=bearer(made["shop"])
        ) as answer:
            assert answer.status == 403
            assert (await answer.json())[
                "detail"
            ] == "token 'shop' is for service shop, and a record has service 'bank'"
        assert await asked(daemon, "POST", path, made["shops"], json=named) == 403  # of which of both?
    stream = {"streams": [{"stream": {"service": "bank"}, "values": [["1700000000000000000", "line"]]}]}
    assert await asked(daemon, "POST", "/loki/api/v1/push", made["shop"], json=stream) == 403
    event = {"event": "line", "fields": {"service": "bank"}}
    async with daemon.http.post("/services/collector", json=event, headers=bearer(made["shop"])) as answer:
        assert answer.status == 403
        assert await answer.json() == {
            "text": "token 'shop' is for service shop, and a record has service 'bank'", "code": 4,
        }  # fmt: skip

    async def read(name: str, path: str = "/logs", **query: str) -> Any:
        async with daemon.http.get(path, params=query, headers=bearer(made[name])) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    every = await read("query", limit="1000")
    assert {(each["service"], each["environment"]) for each in every} >= {("bank", "live"), ("shop", "test")}
    assert {each["service"] for each in await read("shop", limit="1000")} == {"shop"}
    assert {(each["service"], each["environment"]) for each in await read("shops")} == {
        ("shop", "live"),
        ("till", "live"),
    }
    assert await read("shop", q="bank or service:bank") == []
    assert await read("shop", service="bank") == []
    assert [each["service"] for each in await read("shop", "/logs/aggregations", by="service")] == ["shop"]
    assert (await read("shops", "/logs/histogram"))["total"] == 2
    assert (await read("shops", "/logs/search", query="live"))["total_count"] == 2
    bank = next(each["id"] for each in every if each["service"] == "bank")
    for path in (f"/logs/{bank}", f"/logs/{bank}/context"):
        assert await asked(daemon, "GET", path, made["shop"]) == 404
        assert await asked(daemon, "GET", path, made["query"]) == 200
    shop = next(each for each in every if each["service"] == "shop" and each["environment"] == "live")
    around = await read("shops", f"/logs/{shop['id']}/context")
    assert {each["environment"] for each in around["before"] + around["after"]} <= {"live"}
    async with daemon.http.get("/logs/export", headers=bearer(made["shops"])) as answer:
        assert len((await answer.text()).splitlines()) == 2
    async with daemon.http.get("/logs/tail", params={"backlog": "1000"}, headers=bearer(made["shops"])) as answer:
        seen: list[bytes] = []
        async with asyncio.timeout(20):
            while len(seen) < 3:
                line = await answer.content.readline()
                seen += [line] if line.startswith(b"data: ") else []
                if len(seen) == 2:
                    later = [given[4], given[0] | {"message": "the last"}]
                    assert await asked(daemon, "POST", "/ingest", made["ingest"], json=later) == 200
        assert [b'"live"' in line and b"bank" not in line for line in seen] == [True] * 3
        assert b"the last" in seen[2]


async def test_without_tokens_all_are_let_in_and_with_the_first_none(
    start_daemon: Starter, sql: asyncpg.Connection
) -> None:
    daemon = await start_daemon()
    assert await asked(daemon, "POST", "/ingest", json=[{"message": "m"}]) == 200
    first = await tokens.create(sql, "first", ["query"])
    await until(daemon, 401)
    assert await asked(daemon, "GET", "/logs", first) == 200
    assert await tokens.revoke(sql, "first")
    await until(daemon, 401, first)  # the last one is revoked, and nothing is open again
    assert await asked(daemon, "GET", "/logs") == 401


async def test_when_it_is_asked_for_a_token_is_needed_though_there_is_none(start_daemon: Starter) -> None:
    daemon = await start_daemon(auth_required=True)
    assert await asked(daemon, "GET", "/") == 401
    assert await asked(daemon, "GET", "/readyz") == 200


async def test_tokens_are_known_while_postgresql_is_away(
    start_daemon: Starter, sql: asyncpg.Connection, tmp_path: Path, database_url: str
) -> None:
    daemon = await start_daemon(data_dir=tmp_path)
    secret = await tokens.create(sql, "sender", ["ingest"])
    await until(daemon, 401)
    file = tmp_path / "tokens.json"
    async with asyncio.timeout(20):
        while not file.exists():
            await asyncio.sleep(0.02)
    assert file.stat().st_mode & 0o077 == 0
    assert secret not in file.read_text()
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokens.json").write_bytes(file.read_bytes())
    away = await start_daemon(data_dir=other, database_url="postgresql://nobody@127.0.0.1:1/none")
    assert await asked(away, "POST", "/ingest", json=[{"message": "m"}]) == 401
    assert await asked(away, "POST", "/ingest", secret, json=[{"message": "m"}]) == 200  # into the journal


async def test_a_file_of_tokens_that_cannot_be_read_lets_nobody_in(start_daemon: Starter, tmp_path: Path) -> None:
    for number, text in enumerate(["{", "[{}]", '[{"hash": 1}]', "[1]"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "tokens.json").write_text(text)
        daemon = await start_daemon(data_dir=folder, database_url="postgresql://nobody@127.0.0.1:1/none")
        assert await asked(daemon, "POST", "/ingest", json=[{"message": "m"}]) == 401, text
        assert await asked(daemon, "GET", "/healthz") == 200


async def test_the_file_is_written_as_soon_as_it_can_be(
    start_daemon: Starter, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "tokens.new").mkdir()  # in the way
    daemon = await start_daemon(data_dir=tmp_path)
    await tokens.create(sql, "sender", ["ingest"])
    await until(daemon, 401)
    assert not (tmp_path / "tokens.json").exists()
    (tmp_path / "tokens.new").rmdir()
    async with asyncio.timeout(20):
        while not (tmp_path / "tokens.json").exists():
            await asyncio.sleep(0.02)


async def test_a_journal_of_others_is_refused(secrets: tuple[RunningDaemon, dict[str, str]]) -> None:
    daemon, made = secrets
    entry = b"MESSAGE=m\nSYSLOG_IDENTIFIER=%b\n\n"
    assert await asked(daemon, "POST", "/upload", made["shop"], data=entry % b"bank") == 403
    assert await asked(daemon, "POST", "/upload", made["shop"], data=entry % b"shop") == 200
    async with daemon.http.get("/logs", headers=bearer(made["query"])) as answer:
        assert [each["service"] for each in await answer.json()] == ["shop"]


async def test_a_tail_ends_with_its_token(
    secrets: tuple[RunningDaemon, dict[str, str]], sql: asyncpg.Connection
) -> None:
    daemon, made = secrets
    async with daemon.http.get("/logs/tail", headers=bearer(made["query"])) as answer:
        assert answer.status == 200
        assert await tokens.revoke(sql, "query")
        await until(daemon, 401, made["query"])
        assert await asked(daemon, "POST", "/ingest", made["ingest"], json=[{"message": "later"}]) == 200
        async with asyncio.timeout(20):
            assert b"later" not in await answer.content.read()


async def test_one_key_of_two_tokens_is_two_keys(secrets: tuple[RunningDaemon, dict[str, str]]) -> None:
    daemon, made = secrets
    for name in ("ingest", "shop", "ingest"):
        headers = bearer(made[name]) | {"Idempotency-Key": "batch 1"}
        async with daemon.http.post("/ingest", json=[{"message": name}], headers=headers) as answer:
            assert answer.status == 200
    async with daemon.http.get("/logs", headers=bearer(made["query"])) as answer:
        assert sorted(each["message"] for each in await answer.json()) == ["ingest", "shop"]


def test_the_command(database_url: str) -> None:
    def token(*arguments: str) -> Any:
        return CliRunner().invoke(cli, ["token", *arguments, "--database-url", database_url], prog_name="logagg")

    assert token("list").stderr.startswith("there are no tokens")
    made = token("create", "--name", "a b", "--scope", "query,ingest", "--service", "shop")
    assert (made.exit_code, made.stdout[:7], len(made.stdout)) == (0, "logagg_", 51)
    known = f"daemons know the token within {PERIOD:g} seconds\n"
    assert made.stderr == f"{known}from then on every request needs a token, but for /healthz and /readyz\n"
    assert token("create", "--name", "second", "--scope", "ingest").stderr == known
    listed = token("list", "-o", "jsonl").stdout
    assert '"name":"a b","scopes":["ingest","query"],"services":["shop"],"environments":null' in listed
    assert made.stdout.strip() not in listed + token("list").stdout
    assert token("create", "--name", "a b", "--scope", "query").stderr == (
        "logagg: there is, or was, a token 'a b': names are used once\n"
    )
    for odd in ("", "a\nb", "\x1b[2J"):
        assert "is no name" in token("create", "--name", odd, "--scope", "query").stderr
        assert "is no name" in token("create", "--name", "d", "--scope", "query", "--service", odd).stderr
    told = " ".join(token("create", "--help").stdout.split())
    assert all(f"The scope {scope} is to " in told for scope in tokens.SCOPES)
    assert "'read' is none of ingest, query, admin" in token("create", "--name", "c", "--scope", "read").stderr
    assert token("revoke", "a b").stdout == "revoked a b: daemons refuse it within seconds\n"
    assert (
        token("revoke", "a b").stderr == "logagg: there is no token 'a b', or it was revoked; see `logagg token list`\n"
    )


async def test_no_secret_is_logged(
    secrets: tuple[RunningDaemon, dict[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    daemon, made = secrets
    for path in ("/logs", "/metrics", "/nothing", f"/logs?q={made['query']}x"):
        await asked(daemon, "GET", path, made["query"] + "x")
        await asked(daemon, "GET", path, made["query"])
    said = capfd.readouterr()
    assert not any(secret in said.out + said.err for secret in made.values())
