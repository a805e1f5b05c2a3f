import gzip
import zlib
from collections.abc import Callable

import cramjam
import pytest

from logagg.protocols.encodings import EncodingError, TooLarge, decompress

TEXT = b"one line of a log\n" * 500
LIMIT = 1 << 20


def zstd(data: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(data))


def snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


BARE = zlib.compressobj(wbits=-15)
BARE_DEFLATE = BARE.compress(TEXT) + BARE.flush()


@pytest.mark.parametrize(
    ("encoding", "body", "plain"),
    [
        ("gzip", gzip.compress(TEXT), TEXT),
        ("x-gzip", gzip.compress(TEXT), TEXT),
        ("gzip", gzip.compress(TEXT) + gzip.compress(b"more"), TEXT + b"more"),
        ("deflate", zlib.compress(TEXT), TEXT),
        ("deflate", BARE_DEFLATE, TEXT),
        ("zstd", zstd(TEXT), TEXT),
        ("zstd", zstd(TEXT) + zstd(b"more"), TEXT + b"more"),
        ("snappy", snappy(TEXT), TEXT),
        ("identity", TEXT, TEXT),
        ("", TEXT, TEXT),
        ("GZIP", gzip.compress(TEXT), TEXT),
        ("gzip, zstd", zstd(gzip.compress(TEXT)), TEXT),
        ("gzip", b"", b""),
        ("zstd", b"", b""),
    ],
)
def test_what_was_compressed_comes_back(encoding: str, body: bytes, plain: bytes) -> None:
    assert decompress(body, encoding, LIMIT) == plain


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("gzip", b"plain text", "body of 10 bytes is not gzip"),
        ("deflate", b"plain text", "body of 10 bytes is not deflate"),
        ("zstd", b"plain text", "body of 10 bytes is not zstd"),
        ("snappy", b"\x05plain", "body of 6 bytes is not snappy"),
        ("br", TEXT, "unknown Content-Encoding 'br'"),
        ("gzip", gzip.compress(TEXT)[:-9], "gzip body ends too early"),
        ("deflate", zlib.compress(TEXT)[:-6], "deflate body ends too early"),
        ("zstd", zstd(TEXT)[:-4], "is not zstd: incomplete frame"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(encoding: str, body: bytes, said: str) -> None:
    with pytest.raises(EncodingError, match=said):
        decompress(body, encoding, LIMIT)


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd), ("snappy", snappy)]
)
def test_a_bomb_is_refused_and_the_limit_itself_is_not(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(TooLarge, match="once decompressed"):
        decompress(pack(b"0" * (LIMIT + 1)), encoding, LIMIT)
    assert len(decompress(pack(b"0" * LIMIT), encoding, LIMIT)) == LIMIT
