"""Which parts of a log line are data by their very shape, and are masked before any two lines are compared.

One fixed set for every system. No rule knows the words of one program: each is a statement about how programs write
values (numbers, addresses, identifiers, quantities, dates) into text. What cannot be told from its shape is left to the
comparison of lines in `templates.py`.
"""

import re
from collections.abc import Callable
from functools import lru_cache

#: Stands for a variable part, in masked text and in templates.
VARIABLE = "<*>"

#: Characters of a line that are looked at (cut after a space or a comma); `<*>` stands for the rest.
MAX_LINE = 4096

# Shortest run of the letters a to f alone that is taken for a number.
_LETTERS_OF_HEX = 8

# Every alternative may begin only where a run of its characters begins, so a long word is read once and not from each
# of its characters anew.
_VALUE = re.compile(
    r"""
    # First, to be quick: a word of letters that ends as prose does is no value, unless it is hexadecimal.
    (?P<word>(?<!\w)[A-Za-z]*[G-Zg-z][A-Za-z]*(?![\w.+@:/\\~-]))
    # URLs: the scheme may vary (http, https) with the address.
    | (?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>()\[\]{},;]+
    # name@place: mail addresses, logins, objects at an address in memory.
    | (?<![\w.+-])[\w.+-]+@[\w.-]*\w(?::\d+)?
    # A dotted name and a number: host:port, or the source line file:number.
    # One dot alone may also be `object.field:value`, so the last part must look like a domain or an extension then.
    | (?<![\w.-])[\w-]+(?:\.[\w-]+)*\.(?:[\w-]+\.[\w-]+|[a-z]{2,6}):\d+(?!\w)
    # IPv6, MAC and other groups of hexadecimal digits between colons.
    | (?<![\w:])(?=[A-Fa-f:]*\d)(?:[0-9A-Fa-f]{0,4}:){2,31}[0-9A-Fa-f]{0,4}(?![\w:])
    | (?<![\w:])(?:[0-9A-Fa-f]{2}:){5,31}[0-9A-Fa-f]{2}(?![\w:])
    # Absolute and relative paths, of Unix and Windows, with the query of an HTTP target. A slash inside a word is none.
    | (?<![\w.)\]*/\\~])(?:[A-Za-z]:[\\/]|\\\\|~?\.{0,2}/)(?=[\w.*])[^\s"'<>()\[\]{},;:|]*[^\s"'<>()\[\]{},;:|.]
    # UUIDs, whose groups of four may hold no digit.
    | (?<![0-9A-Za-z])[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}(?![0-9A-Za-z])
    # Hexadecimal: marked by 0x; or long enough with a digit in it; or of letters only when no English word is as long.
    | (?<![0-9A-Za-z])(?:0[xX][0-9A-Fa-f]+|(?=[A-Fa-f]*\d)[0-9A-Fa-f]{6,}|[0-9a-f]{8,}|[0-9A-F]{8,})(?![0-9A-Za-z])
    # Letters with one to three digits stuck to them are a name that is spelled so (ssh2, eth0, log4j, sha256): kept
    # here, and merged later when several such names meet in one place.
    | (?P<kept>(?<![A-Za-z0-9])[A-Za-z]+\d{1,3}[A-Za-z]*(?![A-Za-z0-9]))
    # Numbers, and in an identifier everything from its first digit to its last: counters and ids in it vary, what
    # stands between them (task_12_m_3) seldom tells events apart. Colon, slash and comma join only digit to digit
    # (times, dates, thousands). A word led by a digit goes wholly: the letters are its unit (16K, 1s20ms, 80x25).
    | (?:(?<![A-Za-z0-9])[-+])?
      (?:(?<![A-Za-z])\d(?:(?:[A-Za-z0-9_.-]|[:/,](?=\d))*\d)?[A-Za-z%]* | \d(?:(?:[A-Za-z0-9_.-]|[:/,](?=\d))*\d)?)
    """,
    re.VERBOSE,
)

# Values joined by punctuation without a space are one value: versions, dates, address:port, rows of a#b#c.
_JOINED = re.compile(r"<\*>(?:[-.:/_@,+~#|*;&\\]*<\*>)+")

# A month (and weekday) written as a word before or between numbers is part of a date.
_DAY = r"(?:Mon|Tue(?:s)?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?"
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?"
    r"|Aug(?:ust)?|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_DATE = re.compile(rf"\b(?:{_DAY},? +)?{_MONTH}\.? +<\*>(?:,? <\*>)*|<\*>[ /-]{_MONTH}[ /-]<\*>")

# The unit of a size or a time changes with its magnitude (900 B, 1.2 KB; 1 second, 2 seconds; <1 sec), so it belongs
# to the value.
_UNIT = re.compile(
    r"<?<\*> ?(?:bytes?|[kKMGTP]i?B|B|[KMGT]|[mun]s|secs?|seconds?|mins?|minutes?|hours?|hrs?|days?)(?!\w)"
)

# Values padded to a column: the spaces are part of the layout of the number.
_PADDED = re.compile(r" {2,}(?=<\*>)|(?<=<\*>) {2,}")

# After "for user" and the like comes the name of an account, which no program contains.
_ACCOUNT = re.compile(r"\b((?:for|of|as|invalid|unknown) user )[\w.$@\\-]*\w")

# Most words with digits in them are nothing but a number, a time, a date, an address.
_NUMBER = re.compile(r"[-+]?\d(?:[\d.:/_-]*\d)?%?")

# Which digit stands where never matters to the rules above, so lines and words that differ only in digits are read
# once, as if all their digits were 0. (A text of 128 characters is the fastest table for ASCII.)
_SHAPE = "".join("0" if chr(code).isdigit() else chr(code) for code in range(128))


def line_masker() -> Callable[[str], str]:
    """Return a function that replaces the values in a line by `<*>`, word by word, and remembers what it has read."""
    by_shape: dict[str, str] = {}
    word_by_shape = lru_cache(1 << 15)(_mask_word)

    @lru_cache(1 << 16)
    def mask_word(word: str) -> str:
        if word.isalpha() and len(word) < _LETTERS_OF_HEX:
            return word
        masked = word_by_shape(word.translate(_SHAPE))
        return _mask_word(word) if "0" in masked else masked

    def mask_words(line: str) -> str:
        if len(line) <= MAX_LINE:
            return " ".join(map(mask_word, line.split(" ")))
        end = max(line.rfind(" ", 0, MAX_LINE), line.rfind(",", 0, MAX_LINE)) + 1
        return mask_words(line[:end]) + VARIABLE

    def mask(line: str) -> str:
        shape = line.translate(_SHAPE)
        masked = by_shape.get(shape)
        if masked is None:
            masked = by_shape[shape] = mask_words(shape)
        # A digit that is left belongs to a name, which keeps its own digits.
        return mask_words(line) if "0" in masked else masked

    return mask


def _mask_word(word: str) -> str:
    return VARIABLE if _NUMBER.fullmatch(word) else _VALUE.sub(_keep_name, word)


def _keep_name(match: re.Match[str]) -> str:
    return match.group() if match.lastgroup else VARIABLE


def join_values(text: str) -> str:
    """Return the text with values that stand together, or are joined by punctuation, made one."""
    return _JOINED.sub(VARIABLE, text)


def mask_phrases(line: str) -> str:
    """Return a line of masked words with the values that span words (dates, sizes with units, accounts) masked too."""
    line = _ACCOUNT.sub(r"\1<*>", line)
    if VARIABLE not in line:
        return line
    line = join_values(line)
    line = _DATE.sub(VARIABLE, line)
    line = _UNIT.sub(VARIABLE, line)
    return _PADDED.sub(" ", line)
