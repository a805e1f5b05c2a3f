"""A server of HTTP that says what a test wants, for the command line to ask."""

import json
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from click.testing import CliRunner, Result

from logagg.cli.main import cli

Answer = tuple[int, dict[str, str], Any]


class Scripted:
    """A server on a free port; `answer` gets the path, the parameters and the body, and says what to answer."""

    def __init__(self, answer: Callable[[str, dict[str, str], bytes], Answer]) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler) -> None:  # noqa: N805 -- the name is http.server's, and self is the outer one
                parts = urlsplit(handler.path)
                if parts.path.endswith("/healthz"):  # which each client asks first
                    handler.send_response(204)
                    handler.end_headers()
                    return
                params = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                sent = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                self.seen.append((parts.path, params))
                self.headers.append(dict(handler.headers))
                status, headers, body = answer(parts.path, params, sent)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                handler.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    handler.send_header(name, value)
                handler.end_headers()
                with suppress(ConnectionError):  # a client that does not wait
                    handler.wfile.write(data)

            do_POST = do_GET  # noqa: N815 -- as above

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "Scripted":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def logagg(*args: str, **options: Any) -> Result:
    """Run a command, and return what it said."""
    return CliRunner().invoke(cli, list(args), prog_name="logagg", **options)
