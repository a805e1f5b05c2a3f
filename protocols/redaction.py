"""Redaction: what shall not be stored is replaced by `[redacted:NAME]` in messages, attributes and raw bytes.

Columns are searched for the texts that may have something in them, by expressions of polars' engine; those few are
looked at one by one. All that is asked is linear in time: the built-in rules are written so, and patterns of one's own
are for polars' engine alone, which is. Of attributes the values are redacted, texts and numbers alike, never their
names, and they stay one JSON object that differs in nothing else.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import orjson
import polars as pl

from logagg.protocols.columns import Columnar
from logagg.protocols.record import Decoded, Record, Reject

#: Characters of an expression of one's own.
MAX_PATTERN: Final = 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

#: Ends of what looks like an e-mail address and is a unit of systemd: `getty@tty1.service`.
_UNITS = frozenset(
    {"service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"}
)
#: First digits and lengths: Visa, Mastercard, American Express, Discover, Diners Club, JCB, UnionPay.
_ISSUERS = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|(?:5[1-5]|2[2-7])[0-9]{14}|3[47][0-9]{13}|6(?:011|4[4-9]|5|2)[0-9]{12,17}"
    r"|3(?:0[0-5]|[689])[0-9]{11,13}|35[0-9]{14,17}"
)
_LENGTHS = range(13, 20)
#: A token without a digit is so long at least: `Bearer authentication` is none.
_LONG_TOKEN: Final = 20

#: Private characters that stand for the bytes 128 to 255 of what is no UTF-8, as polars' texts take no others.
_PRIVATE = 0xF0000
_TO_PRIVATE = {0xDC00 + byte: _PRIVATE + byte for byte in range(128, 256)}
_FROM_PRIVATE = {private: byte for byte, private in _TO_PRIVATE.items()}
#: Escapes of JSON that stand for a plain character, but for the quote and the backslash.
_ESCAPES = re.compile(r"\\(?:\\|/|u00(?!22|5[cC])([2-7][0-9a-fA-F]))")
#: Texts and numbers in a JSON text; with a colon behind it a text is a name.
_VALUES = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"(?P<name>\s*:)?|-?[0-9][0-9.eE+-]*')


class RedactionError(ValueError):
    """A rule cannot be used; the text names it."""


class Rule(NamedTuple):
    """One thing to find."""

    name: str
    #: Found in every text that has it, and in every JSON text with such a value, by either engine; cheap.
    hint: re.Pattern[str]
    #: The thing; what stands in the group `before` stays.
    pattern: re.Pattern[str]
    #: Whether it is one, where the pattern alone cannot tell.
    check: Callable[[str], bool] | None = None

    def redact(self, text: str, counts: Counter[str]) -> str:
        """Redact a text."""
        if not self.hint.search(text):
            return text
        parts, done, start = [], 0, 0
        while found := self.pattern.search(text, start):
            if self.check and not self.check(found[0]):
                start = found.start() + 1  # the thing may begin within what is none
                continue
            counts[self.name] += 1
            before = found["before"] if "before" in self.pattern.groupindex else ""
            parts += [text[done : found.start()], before, f"[redacted:{self.name}]"]
            done = start = found.end()
        return "".join([*parts, text[done:]])


def _is_address(found: str) -> bool:
    return found.rpartition(".")[2] not in _UNITS


def _is_token(found: str) -> bool:
    token = found.split()[1]
    return len(token) >= _LONG_TOKEN or any(each.isdigit() for each in token)


def is_card(found: str) -> bool:
    """Tell whether it is the number of a payment card: by its length, its issuer, and the checksum of Luhn."""
    digits = re.sub("[ -]", "", found)
    if len(digits) not in _LENGTHS or not _ISSUERS.fullmatch(digits):
        return False
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(sum(divmod(2 * value, 10)) for value in values[1::2])) % 10 == 0


def _rule(name: str, hint: str, pattern: str, check: Callable[[str], bool] | None = None) -> Rule:
    return Rule(name, re.compile(hint), re.compile(pattern), check)


#: The rules that are built in, in the order in which they are tried: a password in a URL may look like an address.
#: Each begins where nothing that it is made of stands before it, so that no character is looked at more than twice.
BUILT_IN: Final = (
    _rule("url_password", r"://[^\s/?#]*@", r"(?P<before>://[^\s/?#:@\"']*:)[^\s/?#\"']+(?=@)"),
    _rule("bearer", r"(?i)bearer", r"(?P<before>(?i:\bbearer)\s+)[A-Za-z0-9._~+/-]{8,}=*", _is_token),
    _rule("jwt", r"eyJ", r"(?<![\w-])eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"),
    _rule("aws_key", r"A[KS]IA[A-Z0-9]{16}", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    _rule("email", r"[\w.%+-]@[\w-]+\.", r"(?<![\w.%+-])[\w.%+-]+@(?:[\w-]+\.)+[^\W\d_]{2,}", _is_address),
    _rule(
        "card",
        r"[0-9]{4}(?:[0-9]{9}|[ -][0-9]{4}[ -][0-9]{4}|[ -][0-9]{6}[ -][0-9]{4})",
        # In one piece, or in the groups in which it is printed; not a part of a number, or of a fraction.
        r"(?<![0-9])(?<![0-9]\.)(?:[0-9]{13,19}|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}"
        r"|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5})(?![0-9])",
        is_card,
    ),
)


class Redactor:
    """Redacts what decoders made."""

    def __init__(self, names: Iterable[str], patterns: Mapping[str, str]) -> None:
        """Take the built-in rules of these names, and patterns of one's own by name. Raises RedactionError."""
        wanted = set(names)
        known = [rule.name for rule in BUILT_IN]
        if unknown := sorted(wanted.difference(known)):
            raise RedactionError(f"redact: {', '.join(unknown)}: not of {', '.join(known)}")
        for name, pattern in patterns.items():
            _check(name, pattern, known)
        self._rules = [rule for rule in BUILT_IN if rule.name in wanted]
        self._own = dict(patterns)
        self.names = [*(rule.name for rule in self._rules), *self._own]
        self._hints = [rule.hint.pattern for rule in self._rules]

    def redact(self, decoded: Decoded | Columnar) -> tuple[Decoded | Columnar, Counter[str]]:
        """Return it redacted, and how often by each rule. In raw bytes of records nothing is counted again."""
        counts: Counter[str] = Counter()
        if isinstance(decoded, Columnar):
            decoded = decoded._replace(records=self._frame(decoded.records, counts))
        elif decoded.records:
            decoded = decoded._replace(records=self._records(decoded.records, counts))
        if decoded.rejects:
            decoded = decoded._replace(rejects=self._rejects(decoded.rejects, counts))
        return decoded, counts

    def _frame(self, frame: pl.DataFrame, counts: Counter[str]) -> pl.DataFrame:
        messages, attributes, raws = frame["message"], frame["attributes"], frame["raw"]
        places = _places(messages, [*self._hints, *self._own.values()])
        new = [_replaced(messages, places, self._texts(messages.gather(places).to_list(), counts))]
        # Where an expression of one's own matches in a value cannot be told by the text of the object.
        places = attributes.is_not_null().arg_true() if self._own else _places(attributes, self._hints)
        new.append(_replaced(attributes, places, self._objects(attributes.gather(places).to_list(), counts)))
        if raws.null_count() < len(raws):
            hit = (new[0] != messages) | (new[1] != attributes).fill_null(value=False)
            new.append(pl.Series("raw", self._raws(raws.to_list(), hit.to_list()), dtype=pl.Binary))
        return frame.with_columns(new)

    def _records(self, records: list[Record], counts: Counter[str]) -> list[Record]:
        messages = self._texts([record.message for record in records], counts)
        attributes = self._objects([record.attributes or "{}" for record in records], counts)
        columns = list(zip(records, messages, attributes, strict=True))
        hits = [text != record.message or more != (record.attributes or "{}") for record, text, more in columns]
        raws = self._raws([record.raw for record in records], hits)
        return [
            record._replace(message=text, attributes=record.attributes and more, raw=raw) if hit or raw else record
            for (record, text, more), hit, raw in zip(columns, hits, raws, strict=True)
        ]

    def _rejects(self, rejects: list[Reject], counts: Counter[str]) -> list[Reject]:
        """Redact their bytes, and the reasons, which may quote them."""
        reasons = self._texts([reject.reason for reject in rejects], Counter())
        raws = self._raws([reject.raw for reject in rejects], [False] * len(rejects), counts)
        return [
            reject._replace(reason=reason, raw=raw or b"")
            for reject, reason, raw in zip(rejects, reasons, raws, strict=True)
        ]

    def _texts(self, texts: list[str], counts: Counter[str]) -> list[str]:
        """Redact texts, one by one."""
        every = "\n".join(texts)
        for rule in self._rules:
            if rule.hint.search(every):
                texts = [rule.redact(text, counts) for text in texts]
        return self._by_own(texts, counts) if self._own and texts else texts

    def _by_own(self, texts: list[str], counts: Counter[str]) -> list[str]:
        column = pl.Series(texts, dtype=pl.String)
        for name, pattern in self._own.items():
            hits = column.str.contains(pattern)
            if hits.any():
                counts[name] += int(column.filter(hits).str.count_matches(pattern).sum())
                before = "${before}" if "(?P<before>" in pattern else ""
                column = column.str.replace_all(pattern, f"{before}[redacted:{name}]")
        return column.to_list()

    def _objects(self, texts: list[str], counts: Counter[str]) -> list[str]:
        """Redact the values of JSON objects."""
        old = [value for text in texts for value in _values(text)]
        new = self._texts(old, counts)
        if new == old:
            return texts
        pairs = zip(old, new, strict=True)
        return [_VALUES.sub(partial(_rewritten, pairs), text) for text in texts]

    def _raws(
        self, raws: Iterable[bytes | None], hits: Iterable[bool], counts: Counter[str] | None = None
    ) -> list[bytes | None]:
        """Redact raw bytes. Those of a record in which there was something, and in whose bytes it is not found, go."""
        kept, hit = list(raws), list(hits)
        places = [place for place, raw in enumerate(kept) if raw]
        if not places:
            return kept
        old = [_ESCAPES.sub(_unescaped, _to_text(kept[place] or b"")) for place in places]
        new = self._texts(old, Counter() if counts is None else counts)
        for place, before, after in zip(places, old, new, strict=True):
            if before != after:
                kept[place] = _to_bytes(after)
            elif hit[place]:
                kept[place] = b"[redacted]"
        return kept


def _check(name: str, pattern: str, known: Sequence[str]) -> None:
    """Raise RedactionError for a pattern that cannot be used."""
    if not _NAME.fullmatch(name):
        raise RedactionError(f"redact_patterns: {name!r} is no name; expected up to 40 of a-z, 0-9, _ and -")
    if name in known:
        raise RedactionError(f"redact_patterns: {name}: there is a rule of this name; choose another")
    if len(pattern) > MAX_PATTERN:
        raise RedactionError(
            f"redact_patterns: {name}: an expression of {len(pattern)} characters, at most {MAX_PATTERN}"
        )
    nothing = pl.Series([""])
    try:
        empty = nothing.str.contains(pattern)[0]
        # Twice, so that a compiled one is half as large as the engine takes: its size is the cost of a byte of text.
        nothing.str.contains(f"(?:{pattern}\n){{2}}".replace("(?P<before>", "(?:"))
    except pl.exceptions.PolarsError as error:
        said = re.search(r"\nerror: ([^\n]+)", str(error))
        reason = said[1] if said else "it is too large" if "size limit" in str(error) else str(error).splitlines()[0]
        raise RedactionError(f"redact_patterns: {name}: not a regular expression of Rust's engine: {reason}") from None
    if empty:
        raise RedactionError(f"redact_patterns: {name}: it matches where there is nothing")


def _places(texts: pl.Series, patterns: Sequence[str]) -> pl.Series:
    """Return the places of the texts in which one of the patterns may match."""
    found = (pl.col(texts.name).str.contains(pattern) for pattern in patterns)
    return texts.to_frame().select(pl.any_horizontal(*found)).to_series().arg_true()


def _replaced(column: pl.Series, places: pl.Series, texts: Sequence[str]) -> pl.Series:
    """Return the column with these texts in these places."""
    if not len(places):
        return column
    # `scatter` changes the column in place, which others may hold.
    return column.clone().scatter(places, pl.Series(texts, dtype=pl.String))


def _values(text: str) -> Iterator[str]:
    """Give the texts and the numbers that are values in a JSON text."""
    for found in _VALUES.finditer(text):
        if not found["name"]:
            token = found[0]
            yield orjson.loads(token) if "\\" in token else token.strip('"')


def _rewritten(pairs: Iterator[tuple[str, str]], found: re.Match[str]) -> str:
    """Return what stands for a token of `_VALUES`; the pairs are the values as they were and as they are now."""
    if found["name"]:
        return found[0]
    old, new = next(pairs)
    return found[0] if new == old else orjson.dumps(new).decode()


def _to_text(raw: bytes) -> str:
    """Return bytes as a text that polars takes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="surrogateescape").translate(_TO_PRIVATE)


def _to_bytes(text: str) -> bytes:
    return text.translate(_FROM_PRIVATE).encode(errors="surrogateescape")


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(int(escape[1], 16))
    return "/" if escape[0] == "\\/" else escape[0]
