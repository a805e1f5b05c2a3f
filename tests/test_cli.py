"""The reading commands against a server that says what the test wants, and the ways in which commands end."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import Result

from logagg.cli.main import cli

if TYPE_CHECKING:
    from logagg.tests.scripted import Answer, Scripted, logagg
else:
    from scripted import Answer, Scripted, logagg

LOGAGG = [sys.executable, "-m", "logagg.cli"]


def record(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": number, "timestamp": f"2026-11-20T10:00:{number % 60:02}Z", "received_at": "2026-11-20T11:00:00Z",
        "level": "INFO", "service": "web", "host": None, "environment": None, "source": None, "facility": None,
        "message": f"message {number}", "attributes": None, "trace_id": None, "span_id": None,
    } | changes  # fmt: skip


def pages_of(total: int) -> Callable[[str, dict[str, str], bytes], Answer]:
    """Answer as `GET /logs` does, over records 1 to total."""

    def answer(path: str, params: dict[str, str], _: bytes) -> Answer:
        numbers = list(range(1, total + 1))
        if params.get("order") != "oldest":
            numbers.reverse()
        start, limit = int(params.get("cursor", 0)), int(params["limit"])
        shown = numbers[start : start + limit]
        more = start + limit < total
        link = f'<{path}?limit={limit}&order={params["order"]}&cursor={start + limit}>; rel="next"'
        return 200, {"Link": link} if more else {}, [record(number) for number in shown]

    return answer


def numbers(result: Result) -> list[int]:
    return [json.loads(line)["id"] for line in result.stdout.splitlines()]


# --- Search ----------------------------------------------------------------------------------------------------------


def test_search_asks_what_it_is_told() -> None:
    with Scripted(lambda *_: (200, {}, [record(1)])) as server:
        result = logagg(
            "search", "connection refused", "-o", "text", "--utc", "--since", "2026-11-20T10:00", "--until",
            "2026-11-20T11:00:00+01:00", "--level", "warn", "--service", "a b", "--host", "h", "--environment", "",
            "--token", "s3cret\n", "--url", f"{server.url}/", "x:1", "-n", "7",
        )  # fmt: skip
    assert result.output == "2026-11-20 10:00:01.000Z INFO    web message 1\n"
    assert server.seen == [
        (
            "/logs",
            {
                "q": "connection refused x:1", "start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-20T10:00:00Z",
                "level": "WARNING", "service": "a b", "host": "h", "environment": "", "order": "newest", "limit": "7",
            },
        )
    ]  # fmt: skip
    assert server.headers[0]["Authorization"] == "Bearer s3cret"


def test_newest_last_and_a_hint_that_there_is_more() -> None:
    with Scripted(pages_of(5)) as server:
        result = logagg("search", "-n", "3", "-o", "jsonl", "--url", server.url)
    assert numbers(result) == [3, 4, 5]
    assert result.stderr == "... older records match: --limit 30, or 0 for all\n"
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("total", "args", "found", "requests"),
    [
        (3, ["-n", "3"], [1, 2, 3], 1),
        (3, ["-n", "3", "--newest-first"], [3, 2, 1], 1),
        (2500, ["-n", "2200"], list(range(301, 2501)), 3),
        (2500, ["-n", "2500", "-r"], list(range(2500, 0, -1)), 3),
        (2500, ["-n", "0"], list(range(1, 2501)), 3),
        (2500, ["-n", "0", "--reverse"], list(range(2500, 0, -1)), 3),
    ],
)
def test_pages_are_followed_to_the_limit(total: int, args: list[str], found: list[int], requests: int) -> None:
    with Scripted(pages_of(total)) as server:
        result = logagg("search", "-o", "jsonl", "--url", f"{server.url}", *args)
    assert numbers(result) == found
    assert len(server.seen) == requests
    assert bool(result.stderr) == (len(found) < total)


def test_a_link_is_followed_on_the_same_server_and_path_only() -> None:
    def answer(path: str, params: dict[str, str], _: bytes) -> Answer:
        links = '</x?cursor=0>; rel="prev", <http://192.0.2.1/evil?q=a,b&cursor=a%20b>; rel="next"'
        link = {} if "cursor" in params else {"Link": links}
        return 200, link, [record(1)]

    with Scripted(answer) as server:
        assert numbers(logagg("search", "-n", "0", "-o", "jsonl", "--url", f"{server.url}/prefix")) == [1, 1]
    assert [path for path, _ in server.seen] == ["/prefix/logs", "/prefix/logs"]
    assert server.seen[1][1] == {"q": "a,b", "cursor": "a b"}


@pytest.mark.parametrize(("output", "text"), [("text", ""), ("jsonl", ""), ("json", "[]\n"), ("raw", "")])
def test_nothing_found_is_exit_1(output: str, text: str) -> None:
    with Scripted(pages_of(0)) as server:
        result = logagg("search", "-o", output, "--url", server.url)
    assert (result.exit_code, result.stdout, result.stderr) == (1, text, "")


# --- The other reading commands --------------------------------------------------------------------------------------


def test_aggregate() -> None:
    rows = [{"host": "a", "level": "ERROR", "count": 12}, {"host": None, "level": "INFO", "count": 3}]
    with Scripted(lambda *_: (200, {}, rows)) as server:
        asked = ["aggregate", "x", "--by", "host, level", "--url", server.url]
        assert logagg(*asked).output == "HOST  LEVEL  COUNT\na     ERROR     12\n-     INFO       3\n"
        assert logagg(*asked, "-n", "1", "-o", "csv").output.startswith("host,level,count\na,ERROR,12\n")
        assert json.loads(logagg(*asked, "-o", "json").output) == rows
    assert server.seen[0] == ("/logs/aggregations", {"q": "x", "by": "host, level"})
    assert server.seen[1][1]["limit"] == "1"


def test_aggregate_by_time() -> None:
    rows = [{"time": "2026-11-20T10:00:00Z", "level": "INFO", "count": 3, "numbers": 1, "min": 0.25, "max": 1e9 / 7}]
    with Scripted(lambda *_: (200, {}, rows)) as server:
        asked = ["aggregate", "--by", "level", "--interval", "1h", "--of", "ms", "--utc", "--url", server.url]
        assert logagg(*asked).output == (
            "TIME                      LEVEL  COUNT  NUMBERS   MIN          MAX  AVG  P50  P90  P95  P99\n"
            "2026-11-20 10:00:00.000Z  INFO       3        1  0.25  1.42857e+08    -    -    -    -    -\n"
        )
    assert server.seen[0][1] == {"by": "level", "interval": "1h", "of": "ms"}


def test_histogram() -> None:
    bins = [{"start": "2026-11-20T10:00:00Z", "total": 3, "levels": {"ERROR": 1, "INFO": 2}}]
    answer = {"start": "2026-11-20T10:00:00Z", "end": "2026-11-20T10:05:00Z", "interval_seconds": 300.0, "bins": bins}
    with Scripted(lambda *_: (200, {}, answer | {"before": 2, "after": 1})) as server:
        asked = ["histogram", "--interval", "5m", "--utc", "--url", server.url]
        text = logagg(*asked, env={"COLUMNS": "40"})
        assert text.stdout == (
            "2026-11-20 10:00 3 ██████▒▒▒▒▒▒▒▒▒▒▒\n3 records, 5m a bar  █ error and worse 1  ▒ notice, info 2\n"
        )
        assert text.stderr == "... 3 more records lie far before or after: --since, --until\n"
        assert logagg(*asked, "-o", "csv").output == (
            "start,total,EMERGENCY,ALERT,CRITICAL,ERROR,WARNING,NOTICE,INFO,DEBUG\n2026-11-20T10:00:00Z,3,0,0,0,1,0,0,2,0\n"
        )
        assert json.loads(logagg(*asked, "-o", "jsonl").output) == bins[0]
        assert json.loads(logagg(*asked, "-o", "json").output)["bins"] == bins
    assert server.seen[0] == ("/logs/histogram", {"interval": "5m"})


# --- Failures --------------------------------------------------------------------------------------------------------

CARET = "expected a value after level:\n  timeout level:\n                ^"


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, {"detail": CARET}, CARET),
        (422, {"detail": [{"loc": ["query", "start_time"], "msg": "not a time"}]}, "--since: not a time"),
        (422, {"detail": [{"loc": ["query", "by"], "msg": "unknown"}, {"msg": "b\x1b"}]}, "--by: unknown\nb\\x1b"),
        (401, {"detail": "no"}, "{url} wants a token, or another one: --token or LOGAGG_TOKEN (401)"),
        (403, {"detail": "read only"}, "{url} refuses that (403): read only"),
        (404, b"<html>", "{url} has no /logs (404); is it logagg?"),
        (404, {"detail": "Not Found"}, "{url} has no /logs (404); is it logagg?"),
        (500, {"detail": "sorry"}, "{url}/logs answered 500 Internal Server Error: sorry"),
        (503, {"detail": "the query took more than 30 s"}, "the query took more than 30 s"),
        (503, b"", "{url} cannot serve this now (503)"),
        (302, b"", "{url}/logs answered 302 Found"),
        (200, b"<h1>\x1b[2J", r"{url}/logs answered with something that is not JSON; is it logagg? <h1>\x1b[2J"),
        (200, b"[" * 100_000, "{url}/logs answered with something that is not JSON; is it logagg? " + "[" * 80),
        (200, {"a": 1}, "{url}/logs answered with JSON, but no list of objects; is it logagg?"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_said_in_one_line(status: int, body: Any, message: str) -> None:
    with Scripted(lambda *_: (status, {}, body)) as server:
        result = logagg("search", "--url", server.url)
    assert result.stderr == f"logagg: {message.replace('{url}', server.url)}\n"
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_failure_on_a_later_page_keeps_what_was_printed() -> None:
    first = pages_of(1500)

    def answer(path: str, params: dict[str, str], body: bytes) -> Answer:
        return (503, {}, {"detail": "the store is away"}) if "cursor" in params else first(path, params, body)

    with Scripted(answer) as server:
        result = logagg("search", "-n", "0", "-o", "jsonl", "--url", server.url)
    assert (result.exit_code, len(numbers(result)), result.stderr) == (2, 1000, "logagg: the store is away\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["serch"], "no such command: serch; did you mean `logagg search`? (see `logagg --help`)"),
        (["db", "statsu"], "no such command: statsu; did you mean `logagg db status`? (see `logagg db --help`)"),
        (["search", "--since", "soon"], "--since: 'soon' is not a time; try 15m"),
        (["search", "--since", "1h", "--until", "2h"], "--since 1h is after --until 2h: nothing can match"),
        (["search", "--level", "loud"], "Invalid value for '--level': 'loud' is not one of"),
        (["search", "--url", "localhost:8000"], "'localhost:8000' is not the address of a server; expected such as"),
        (["search", "--url", "http://[::1"], "'http://[::1' is not the address of a server"),
        (["search", "--url", "http://a:99999"], "'http://a:99999' is not the address of a server"),
        (["search", "--token", "a\nb"], "the token (--token or LOGAGG_TOKEN) holds what no token can"),
        (["search", "--url", "http://no.invalid"], "cannot reach http://no.invalid: the name no.invalid is not known"),
        (["search", "--url", "http://127.0.0.1:1"], "cannot reach http://127.0.0.1:1: connection refused; is `logagg"),
        (["aggregate", "-o", "raw"], "Invalid value for '-o' / '--output': 'raw' is not one of"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_clear_line(args: list[str], message: str) -> None:
    result = logagg(*args)
    assert result.stderr.startswith(f"logagg: {message}")
    assert result.stderr.count("\n") == 1
    assert (result.exit_code, result.stdout) == (2, "")


IS_IT = "is it the HTTP port of logagg?"


def test_no_answer_in_time_and_no_http() -> None:
    heard = threading.Event()
    with Scripted(lambda *_: (heard.wait(60), (200, {}, []))[1]) as server:
        # Enough for /healthz, which is answered, on a machine that is busy.
        result = logagg("search", "--timeout", "0.5", "--url", server.url)
        heard.set()
    assert result.stderr == f"logagg: no answer from {server.url} within 0.5 s (--timeout)\n"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for command in ("search", "export", "send"):
            result = logagg(command, "--timeout", "0.1", "--token", "secret", "--url", url, input="x\n")
            assert result.stderr.endswith(f"{url} takes connections and says nothing within 0.1 s; {IS_IT}\n")
            client, _ = silent.accept()
            with client:
                assert b"secret" not in client.recv(9999)
    with Scripted(lambda *_: (200, {"Content-Length": "999999", "Connection": "close"}, [])) as server:
        assert logagg("search", "--url", server.url).stderr.startswith(f"logagg: {server.url} did not answer in HTTP: ")
    with Scripted(lambda *_: (200, {"Link": '<?order=newest&limit=100>; rel="next"'}, [])) as server:
        assert "a next page that is the same one" in logagg("search", "--url", server.url).stderr


# --- Every command ---------------------------------------------------------------------------------------------------


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command
            yield (*path, name), command
            if isinstance(command, click.Group):
                yield from commands(command, (*path, name))


COMMANDS = dict(commands(cli))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_a_sentence_examples_and_defaults(path: tuple[str, ...]) -> None:
    text = logagg(*path, "--help").output
    assert re.search(r"Usage: logagg .*\n\n  [A-Z][^\n]*[.:]", text)
    assert f"Examples:\n    {'logagg' if path != ('db', 'url') else 'psql'} " in text
    undocumented = [p.name for p in COMMANDS[path].params if isinstance(p, click.Option) and not p.help]
    assert not undocumented
    for command in re.findall(r"logagg (\w[\w-]*(?: \w+)?)", text):
        assert tuple(command.split())[:1] in COMMANDS, command


def test_the_list_of_commands_says_what_they_say_themselves() -> None:
    listed = dict(
        re.findall(r"^  ([a-z-]+) {2,}(.*)$", logagg("--help").output.partition("Commands:")[2], re.MULTILINE)
    )
    assert listed == {path[0]: each.get_short_help_str(100) for path, each in COMMANDS.items() if len(path) == 1}


def test_version_and_help_of_all() -> None:
    assert re.fullmatch(r"logagg \d+\.\d+\.\d+\n", logagg("--version").output)
    assert (logagg("-h").exit_code, logagg().exit_code) == (0, 2)
    assert "Commands:" in logagg().stderr


HEAVY = {"polars", "asyncpg", "aiohttp", "pydantic", "pydantic_settings", "uvloop", "structlog", "orjson", "asyncio"}


@pytest.mark.parametrize(
    "args", [["--help"], ["search", "--url", "http://127.0.0.1:1"], ["send", "--help"], ["db", "--help"]], ids=" ".join
)
def test_nothing_heavy_is_imported(args: list[str]) -> None:
    code = (
        "import sys; from logagg.cli.main import main\n"
        "try: main(sys.argv[1:])\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    loaded = done.stderr.split()
    assert "logagg.cli.main" in loaded
    assert not HEAVY & set(loaded)
    if args == ["--help"]:
        assert "http.client" not in loaded


# --- How a process ends ----------------------------------------------------------------------------------------------


def test_a_closed_pipe_is_silent() -> None:
    with Scripted(pages_of(20_000)) as server:
        command = [*LOGAGG, "search", "-n", "0", "--url", server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout and process.stderr  # noqa: PT018 -- for mypy
            assert b"message 1\n" in process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 0


def test_ctrl_c_is_quiet() -> None:
    with Scripted(lambda *_: (time.sleep(1), (200, {}, []))[1]) as server:  # type: ignore[func-returns-value]  # sleeps
        command = [*LOGAGG, "search", "--url", server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while not server.seen:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert process.communicate() == (b"", b"")
            assert process.returncode == 130


def on_terminal(*args: str, **env: str) -> str:
    """Run the program on a pseudo-terminal of 80 x 10."""
    main, worker = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "PAGER", "LESS"}}
    size = {"TERM": "xterm", "COLUMNS": "80", "LINES": "10"}
    process = subprocess.Popen([*LOGAGG, *args], stdin=worker, stdout=worker, stderr=worker, env=clean | size | env)
    os.close(worker)
    printed = b""
    with suppress(OSError):  # Linux says EIO when the other side is closed
        while data := os.read(main, 65536):
            printed += data
    os.close(main)
    process.wait()
    return printed.decode().replace("\r\n", "\n")


def test_colours_and_pager_are_for_terminals() -> None:
    with Scripted(pages_of(4)) as server:
        short = on_terminal("search", "--utc", "--url", server.url, PAGER="sed s/^/P:/")
        assert short.startswith("\x1b[2m2026-11-20 10:00:01.000Z\x1b[0m \x1b[32mINFO\x1b[0m    ")
        plain = on_terminal("search", "--utc", "--url", server.url, NO_COLOR="1")
        assert plain.startswith("2026-11-20 10:00:01.000Z INFO    web message 1\n")
    with Scripted(pages_of(30)) as server:
        long = on_terminal("search", "--url", server.url, "--color", "never", PAGER="sed s/^/P:/").splitlines()
        assert len(long) == 30
        assert all(line.startswith("P:2026-") for line in long)
        assert "P:" not in on_terminal("search", "--url", server.url, "--no-pager", PAGER="sed s/^/P:/")
        # A pager that is left early ends the command, not with a complaint.
        assert on_terminal("search", "--url", server.url, "-n", "0", "--utc", PAGER="head -n 1").count("\n") == 1
        assert on_terminal("search", "--url", server.url, PAGER="no-such-program").count("\n") == 30
    with Scripted(pages_of(0)) as server:
        assert on_terminal("search", "--url", server.url) == "no record matches\n"
