"""Webhooks: a message goes by POST, as JSON, and is taken with a status of 200 to 299."""

import os
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from logagg.collector.alerts import Rule

#: Seconds that a receiver has to answer.
PATIENCE = 10.0


class NotTaken(Exception):
    """The receiver did not take a message; the text says why, and holds nothing secret."""


async def post(http: aiohttp.ClientSession, rule: Rule, message: Mapping[str, Any]) -> int:
    """Post a message to the webhook of a rule; return the status with which it was taken. Raises NotTaken."""
    headers = {name: value.get_secret_value() for name, value in rule.headers.items()}
    try:
        async with http.post(
            rule.webhook.get_secret_value(),
            data=orjson.dumps(message),
            headers={"Content-Type": "application/json", "User-Agent": "logagg", **headers},
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
            allow_redirects=False,
        ) as answer:
            status = answer.status
    except aiohttp.ClientSSLError as error:
        raise NotTaken(f"TLS fails: {type(error).__name__}") from None
    except aiohttp.ClientConnectorError as error:
        number = error.os_error.errno or 0
        raise NotTaken(f"cannot connect: {os.strerror(number) if number > 0 else error.os_error.strerror}") from None
    except TimeoutError:
        raise NotTaken(f"no answer within {PATIENCE:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NotTaken(type(error).__name__) from None  # its text may hold the address
    if not 200 <= status < 300:
        raise NotTaken(f"answered {status}")
    return status
