r"""What a word is to the token filter: the rules of the query language, frozen, as a table over all characters.

A word is a maximal run of letters, digits and underscores, compared without case: `[\p{L}\p{N}_]+` under `(?i)`, as
Rust's `regex` has it, which evaluates the queries. A filter is kept for as long as its batch, so the table is that of
Unicode 16 and never changes. Characters that came later are no part of a word here: `known` is false for words that
have one.
"""

import functools
import re

import numpy as np
import numpy.typing as npt
import polars as pl

_UNICODE = "16.0"
#: Under (?i), because one mark, U+0345, is a letter there: it is the letter iota to those who ignore case.
_WORDS = rf"(?i)[[\p{{L}}\p{{N}}_]&&\p{{Age={_UNICODE}}}]+"
_END = 0x110000
#: No word has a character from here on in Unicode 16.
_LAST_WORDS = 0x32400

#: Every character that differs from the one that stands for its class of equal letters: `FIRST>TO`, in hexadecimal;
#: `FIRST+COUNT>TO` for as many in a row, `FIRST*COUNT>TO` for every second one. All of a run go the same distance.
#: The classes are those of CaseFolding.txt, status C and S; for Latin letters of ASCII it is the small one that stands
#: for the class, else the last one.
_FOLDS = """
41+26>61 b5>3bc c0*16>e0 c1*2>e1 c5>212b c7*8>e7 d9*3>f9 df>1e9e e5>212b ff>178 100*24>101 132*3>133 139*8>13a
14a*23>14b 179*3>17a 17f>73 180>243 181>253 182*2>183 186>254 187>188 189+2>256 18b>18c 18e>1dd 18f>259 190>25b
191>192 193>260 194>263 195>1f6 196>269 197>268 198>199 19a>23d 19b>a7dc 19c>26f 19d>272 19e>220 19f>275 1a0*3>1a1
1a6>280 1a7>1a8 1a9>283 1ac>1ad 1ae>288 1af>1b0 1b1+2>28a 1b3*2>1b4 1b7>292 1b8>1b9 1bc>1bd 1bf>1f7 1c4>1c6 1c5>1c6
1c7>1c9 1c8>1c9 1ca>1cc 1cb*9>1cc 1de*9>1df 1f1>1f3 1f2*2>1f3 1f8*20>1f9 222*9>223 23a>2c65 23b>23c 23e>2c66
23f+2>2c7e 241>242 244>289 245>28c 246*5>247 250>2c6f 251>2c6d 252>2c70 25c>a7ab 261>a7ac 264>a7cb 265>a78d 266>a7aa
26a>a7ae 26b>2c62 26c>a7ad 271>2c6e 27d>2c64 282>a7c5 287>a7b1 29d>a7b2 29e>a7b0 345>1fbe 370*2>371 376>377
37b+3>3fd 37f>3f3 386>3ac 388+3>3ad 38c>3cc 38e+2>3cd 390>1fd3 391*2>3b1 392>3d0 394*2>3b4 395>3f5 397>3b7 398>3f4
399>1fbe 39a>3f0 39b+5>3bb 3a0>3d6 3a1>3f1 3a3+3>3c3 3a6>3d5 3a7+2>3c7 3a9>2126 3aa+2>3ca 3b0>1fe3 3b2>3d0 3b5>3f5
3b8>3f4 3b9>1fbe 3ba>3f0 3c0>3d6 3c1>3f1 3c2>3c3 3c6>3d5 3c9>2126 3cf>3d7 3d1>3f4 3d8*12>3d9 3f2>3f9 3f7>3f8 3fa>3fb
400+16>450 410+2>430 412>1c80 413*7>433 414>1c81 416*4>436 41e>1c82 420>440 421>1c83 422>1c85 423+7>443 42a>1c86
42b+5>44b 432>1c80 434>1c81 43e>1c82 441>1c83 442>1c85 44a>1c86 460>461 462>1c87 463>1c87 464*15>465 48a*27>48b
4c0>4cf 4c1*7>4c2 4d0*48>4d1 531+38>561 10a0+38>2d00 10c7>2d27 10cd>2d2d 10d0+43>1c90 10fd+3>1cbd 13a0+80>ab70
13f0+6>13f8 1c84>1c85 1c88>a64b 1c89>1c8a 1d79>a77d 1d7d>2c63 1d8e>a7c6 1e00*48>1e01 1e60>1e9b 1e61>1e9b
1e62*26>1e63 1ea0*48>1ea1 1f00+8>1f08 1f10+6>1f18 1f20+8>1f28 1f30+8>1f38 1f40+6>1f48 1f51*4>1f59 1f60+8>1f68
1f70+2>1fba 1f72+4>1fc8 1f76+2>1fda 1f78+2>1ff8 1f7a+2>1fea 1f7c+2>1ffa 1f80+8>1f88 1f90+8>1f98 1fa0+8>1fa8
1fb0+2>1fb8 1fb3>1fbc 1fc3>1fcc 1fd0+2>1fd8 1fe0+2>1fe8 1fe5>1fec 1ff3>1ffc 212a>6b 2132>214e 2160+16>2170 2183>2184
24b6+26>24d0 2c00+48>2c30 2c60>2c61 2c67*3>2c68 2c72>2c73 2c75>2c76 2c80*50>2c81 2ceb*2>2cec 2cf2>2cf3 a640*23>a641
a680*14>a681 a722*7>a723 a732*31>a733 a779*2>a77a a77e*5>a77f a78b>a78c a790*2>a791 a794>a7c4 a796*10>a797 a7b3>ab53
a7b4*8>a7b5 a7c7*2>a7c8 a7cc>a7cd a7d0>a7d1 a7d6*3>a7d7 a7f5>a7f6 fb05>fb06 ff21+26>ff41 10400+40>10428
104b0+36>104d8 10570*19>10597 10571*5>10598 1057d*7>105a4 1058d*3>105b4 10595>105bc 10c80+51>10cc0 10d50+22>10d70
118a0+32>118c0 16e40+32>16e60 1e900+34>1e922
"""
_RUN = re.compile(r"([0-9a-f]+)(?:([+*])([0-9]+))?>([0-9a-f]+)")

#: For each byte of ASCII the folded one, 0 where it belongs to no word. Other bytes stay.
ASCII = bytes(ord(c.lower()) if c.isalnum() or c == "_" else 0 for c in map(chr, range(128))) + bytes(range(128, 256))


def fold(text: bytes) -> bytes:
    """Return the words of UTF-8 text, folded, in UTF-8, with one or more bytes 0 between them."""
    if text.isascii():
        return text.translate(ASCII)
    characters = np.frombuffer(text.decode().encode("utf-32-le"), "<u4")
    folded: bytes = _table()[characters].tobytes()
    return folded.decode("utf-32-le").encode()


def known(word: str) -> bool:
    """Tell whether a text is one word, of characters that the table knows."""
    return bool(word) and b"\0" not in fold(word.encode())


@functools.cache
def _table() -> npt.NDArray[np.uint32]:
    """Return for each character the one that stands for its class, 0 where it belongs to no word. 4 MB."""
    table = np.zeros(_END, dtype="<u4")
    characters = "".join(map(chr, range(1, _LAST_WORDS))).encode(errors="replace").decode()  # no surrogates
    for run in pl.Series([characters]).str.extract_all(_WORDS).item():
        table[ord(run[0]) : ord(run[-1]) + 1] = np.arange(ord(run[0]), ord(run[-1]) + 1)
    for first, kind, count, to in _RUN.findall(_FOLDS):
        places = int(first, 16) + np.arange(int(count or 1)) * (2 if kind == "*" else 1)
        places = places[table[places] != 0]
        table[places] = places + (int(to, 16) - int(first, 16))
    table.flags.writeable = False
    return table
