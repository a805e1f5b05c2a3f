import gzip
import zlib
from collections.abc import Callable

import cramjam
import pytest

from logagg.protocols.encodings import EncodingError, decompress
from logagg.protocols.limits import TooLarge

TEXT = b"one line of a log\n" * 500
LIMIT = 1 << 20


def zstd(data: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(data))


def snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


def framed(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress(data))


def bare(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return machine.compress(data) + machine.flush()


@pytest.mark.parametrize(
    ("encoding", "body", "plain"),
    [
        ("gzip", gzip.compress(TEXT), TEXT),
        ("x-gzip", gzip.compress(TEXT), TEXT),
        ("gzip", gzip.compress(TEXT) + gzip.compress(b"more"), TEXT + b"more"),
        ("deflate", zlib.compress(TEXT), TEXT),
        ("deflate", bare(TEXT), TEXT),
        ("zstd", zstd(TEXT), TEXT),
        ("zstd", zstd(TEXT) + zstd(b"more"), TEXT + b"more"),
        ("snappy", snappy(TEXT), TEXT),
        ("snappy", snappy(b"\x06" * 895), b"\x06" * 895),
        ("snappy", framed(TEXT), TEXT),
        ("snappy", framed(TEXT) + framed(b"more"), TEXT + b"more"),
        ("snappy", framed(TEXT * 99), TEXT * 99),
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
        ("snappy", framed(TEXT)[:-4], "is not snappy"),
        ("snappy", framed(TEXT)[:14] + b"\0" + framed(TEXT)[15:], "is not snappy"),
        ("snappy", b"", "body of 0 bytes is not snappy"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(encoding: str, body: bytes, said: str) -> None:
    with pytest.raises(EncodingError, match=said):
        decompress(body, encoding, LIMIT)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        *(("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare), ("zstd", zstd)),
        *(("snappy", snappy), ("snappy", framed)),
    ],
)
def test_a_bomb_is_refused_and_the_limit_itself_is_not(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(TooLarge, match="once decompressed"):
        decompress(pack(b"0" * (LIMIT + 1)), encoding, LIMIT)
    assert len(decompress(pack(b"0" * LIMIT), encoding, LIMIT)) == LIMIT


def test_a_bomb_of_many_members_or_of_many_encodings_is_refused() -> None:
    members = gzip.compress(b"0" * (LIMIT // 4)) * 5
    twice = gzip.compress(gzip.compress(b"0" * LIMIT * 20))
    for body, encoding in ((members, "gzip"), (twice, "gzip, gzip"), (zstd(b"0" * LIMIT) * 2, "zstd")):
        with pytest.raises(TooLarge):
            decompress(body, encoding, LIMIT)
