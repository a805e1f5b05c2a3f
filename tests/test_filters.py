import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.query.evaluate import evaluate
from logagg.query.syntax import Equal, Field, Phrase
from logagg.query.text import number, words_of
from logagg.sinks import filters, words

#: Characters that need care, and what stands between words.
LETTERS = "aAbBzZ_09sSſkK\u212aßẞéÉеЕжЖςσΣİiıIǅǆꭰᎠ𐐀𐐨\u0345ι1२漢字한"
OTHERS = ' \n\t\\"/.,:-—😀\u0301\u00a0'
TEXTS = st.text(alphabet=LETTERS + OTHERS, max_size=40)
NUMBERS = st.sampled_from(
    ["2e2", "200", "200.0", "-200", "20000E-2", "199.99999999999999999", "0.99999999999999999", "1e400", "9e15",
     "100000000000000001.0", "12345678901.99999999", "-0", "0.5e1", "00200", "2e"]
)  # fmt: skip
WORD = r"[\p{L}\p{N}_]"
EVERYTHING = pl.Series([chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000])


def no_json(values: list[str | None] | None = None) -> pl.Series:
    return pl.Series(values or [], dtype=pl.String)


def holds(filter_: bytes, *asked: str) -> list[bool]:
    if not asked:
        return []
    hashes = filters.hash_words(asked)
    blocks = b"".join(filter_[at : at + filters.BLOCK] for at in filters.block_of(hashes, len(filter_)).tolist())
    held: list[bool] = filters.may_hold(blocks, [len(filter_)], hashes).held[0].tolist()
    return held


def of_texts(*texts: str | None) -> bytes:
    return filters.build([pl.Series(texts, dtype=pl.String)], no_json())


def simple(texts: list[str]) -> bytes:
    """The filter as its definition has it, a word at a time."""
    there = {word for text in texts for word in words.fold(text.encode()).split(b"\0")} - {b""}
    blocks = max(1, -(-len(there) * filters.BITS_PER_WORD // (8 * filters.BLOCK)))
    filter_ = [[0] * 8 for _ in range(blocks)]
    for one in map(simple_hash, there):
        block = filter_[(one >> 32) * blocks >> 32]
        for place, salt in enumerate(filters._SALTS.tolist()):
            block[place] |= 1 << ((one * salt & 0xFFFFFFFF) >> 27)
    for place, block in enumerate(filter_):
        block[7] = simple_checksum(block, place, blocks)
    return b"".join(number.to_bytes(4, "little") for block in filter_ for number in block)


def simple_checksum(block: list[int], number: int, blocks: int) -> int:
    odd, first, second, most = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, (1 << 64) - 1
    state = number + blocks * odd & most
    for bits in block[:7]:
        state = (state ^ bits) * first & most
        state ^= state >> 32
    return (state * second & most) >> 32


def simple_hash(word: bytes) -> int:
    odd, first, second, most = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, (1 << 64) - 1
    read = word if len(word) <= 64 else word[:32] + word[-32:]
    state, *more = (int.from_bytes(read[place : place + 8], "little") for place in range(0, len(read), 8))
    for number_ in (*more, len(word)) if len(word) > 64 else more:
        state = ((state ^ state >> 32) * odd + number_) & most
        state = (state ^ state >> 29) * first & most
    state = (state + odd) & most
    state = (state ^ state >> 30) * first & most
    state = (state ^ state >> 27) * second & most
    return state ^ state >> 31


def found_in(texts: list[str]) -> set[str]:
    return {word for found in pl.Series(texts).str.extract_all(f"(?i){WORD}+").to_list() for word in found}


def test_every_character_is_part_of_a_word_or_not_as_the_engine_of_queries_has_it() -> None:
    folded = words.fold(EVERYTHING.str.join("").item().encode()).decode()
    assert [c != "\0" for c in folded] == EVERYTHING.str.contains(f"(?i)^{WORD}$").to_list()


def test_characters_are_equal_exactly_when_the_engine_of_queries_ignores_their_case() -> None:
    cased = EVERYTHING.filter(EVERYTHING.str.contains(r"[\p{CWCF}\p{CWU}\p{CWL}\p{CWT}\p{Cased}]"))
    cased = cased.filter(cased.str.contains(f"(?i){WORD}"))
    row = pl.Series([cased.str.join("").item()])
    folded = dict(zip(cased, words.fold(row.item().encode()).decode(), strict=True))
    classes: dict[str, set[str]] = {}
    for character, one in folded.items():
        classes.setdefault(one, set()).add(character)
    wrong = [c for c, one in folded.items() if set(row.str.extract_all(f"(?i){c}").item()) != classes[one]]
    assert not wrong
    rest = EVERYTHING.filter(~EVERYTHING.is_in(cased.implode()) & EVERYTHING.str.contains(f"(?i){WORD}"))
    assert words.fold(rest.str.join("").item().encode()).decode() == rest.str.join("").item()
    assert not set(rest) & classes.keys()


def test_ascii_alone_and_among_other_characters_is_folded_alike() -> None:
    text = "".join(map(chr, range(128)))
    assert words.fold(text.encode()) == words.fold(f"{text}é".encode())[: len(text)]


def test_the_hash_never_changes() -> None:
    golden = (
        "4f5da978776a9db1 3c0113d2ceaa24f3 e546d198acc6d286 edf63dc42f4a429c "
        "0f4023e24b340a2b 015c98fadba0d46f 559e2fee19b401d6 4d7718ed2ebe45ca 79959f7d6f051130"
    )
    asked = ["a", "Password", "x" * 8, "x" * 9, "x" * 64, "x" * 65, "ΣΑΣ", "漢字", "".join(map(str, range(60)))]
    assert " ".join(f"{value:016x}" for value in filters.hash_words(asked).tolist()) == golden


@given(st.lists(TEXTS, min_size=1, max_size=30), st.data())
def test_a_damaged_block_says_yes(texts: list[str], data: st.DataObject) -> None:
    filter_ = of_texts(*texts)
    asked = sorted(found_in(texts) | {"absent"})
    assert [word for word, held in zip(asked, holds(filter_, *asked), strict=True) if not held] in ([], ["absent"])
    bit = data.draw(st.integers(0, 8 * len(filter_) - 1))
    flipped = bytearray(filter_)
    flipped[bit // 8] ^= 1 << bit % 8
    known = [word for word in asked if words.known(word)]
    assert all(holds(bytes(flipped), *(word for word in known if word != "absent")))
    cut = filter_[: filters.BLOCK * data.draw(st.integers(1, len(filter_) // filters.BLOCK))]
    assert len(cut) == len(filter_) or all(holds(cut, *known))


def test_what_is_no_word_has_no_hash() -> None:
    for text in ("", "a b", "a-b", "😀", "a\n"):
        assert not words.known(text)
        with pytest.raises(ValueError, match="no word"):
            filters.hash_words([text])
    assert all(map(words.known, ("漢字_1", "\u0345")))


LONG = st.builds(
    lambda text, times: text * times, st.text(st.sampled_from(LETTERS), min_size=1, max_size=9), st.integers(1, 20)
)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.one_of(TEXTS, ANY, LONG, st.builds("{} {}".format, LONG, ANY)), max_size=12), st.integers(1, 80))
@settings(max_examples=300, deadline=None)
def test_a_filter_is_what_its_definition_says_in_every_script(texts: list[str], part: int) -> None:
    wanted = simple(texts)
    assert of_texts(*texts) == wanted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "_SLICE", part)
        assert of_texts(*reversed(texts), None) == wanted


@pytest.mark.parametrize("length", [*range(1, 18), 23, 24, 25, 31, 32, 33, 39, 40, 41, 63, 64, 65, 71, 72, 1000])
def test_words_of_every_length_are_hashed_as_defined(length: int) -> None:
    word = "".join(chr(97 + place * 7 % 26) for place in range(length))
    others = [word, word[1:] + "0", "0" + word[1:], word[: length // 2] + "_" + word[length // 2 + 1 :]]
    assert filters.hash_words(others).tolist() == [simple_hash(other.encode()) for other in others]


@given(st.lists(TEXTS, min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_every_word_of_a_text_is_held(texts: list[str]) -> None:
    there = found_in(texts)
    filter_ = of_texts(*texts)
    assert all(holds(filter_, *there))
    assert there or filter_ == simple([])


VALUES = st.recursive(
    st.one_of(TEXTS, NUMBERS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["k", "status", "é"]), VALUES, min_size=1, max_size=3),
    st.booleans(),
    st.one_of(NUMBERS, TEXTS, st.integers().map(str)),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_what_a_query_finds_in_attributes_is_held(
    attributes: dict[str, object], escaped: bool, value: str, data: st.DataObject
) -> None:
    document = json.dumps(attributes, ensure_ascii=escaped)
    for text in ("2e2", "20000E-2", "199.99999999999999999"):  # as a number, too
        document = document.replace(f'"{text}"', data.draw(st.sampled_from([text, f'"{text}"'])))
    frame = pl.DataFrame({"message": [""], "attributes": [document]})
    filter_ = filters.build([frame["message"]], frame["attributes"])
    there = [word for word in sorted(found_in([document])) if "\u0345" not in word]
    asked = [*words_of(value), data.draw(st.sampled_from(there))]
    for word in filter(words.known, asked):
        if evaluate(Phrase(None, (word,)), frame).item():
            assert holds(filter_, word) == [True]
    for name in attributes:
        if evaluate(Equal(Field(name, True), (value,)), frame).item():
            wanted = number(value)
            assert all(holds(filter_, *(found_in([value]) if wanted is None else [str(abs(int(wanted)))])))


@pytest.mark.parametrize(
    "document",
    [
        '{"a":"x\\nfirst","b":"c:\\\\new\\\\table"}',
        '{"a":"caf\\u00e9 \\ud83d\\ude00 first"}',
        '{"a":"\\ud800first"}',
        '{"a":' * 300 + '"first"' + "}" * 300,
        '{"a":' + "[" * 1020 + '"\\u0066irst"' + "]" * 1020 + "}",
        '{"a":' + "[" * 5000 + '"first"' + "]" * 5000 + "}",
        "{broken first",
    ],
)
def test_words_in_odd_documents_are_held(document: str) -> None:
    frame = pl.DataFrame({"message": [""], "attributes": [document]})
    assert evaluate(Phrase(None, ("first",)), frame).item()
    filter_ = filters.build([], frame["attributes"])
    assert holds(filter_, "FIRST") == [True]
    if "table" in document:
        assert holds(filter_, "new", "table") == [True, True]


def test_very_long_words_and_very_many_are_held() -> None:
    long = "x" * 60_000
    many = [f"word{i}é{i * 7919:x}" for i in range(20_000)]
    others = ["漢" * 30_000, "", "😀" * 1000, None, "a" * 200_000 + " end"]
    filter_ = of_texts(long, " ".join(many), *others)
    asked = [long, *many, "漢" * 30_000, "a" * 200_000, "end"]
    assert all(holds(filter_, *asked))
    assert not any(holds(filter_, "x" * 59_999, "a" * 199_999, "漢" * 29_999, "nowhere"))


def test_a_filter_without_words_holds_none() -> None:
    assert holds(of_texts("", None, "-"), "a") == [False]
    assert holds(filters.build([], no_json([None])), "a") == [False]


def test_a_wrong_yes_is_rare() -> None:
    filter_ = of_texts(*(f"{i * 0x9E3779B97F4A7C15 % (1 << 64):x}" for i in range(20_000)))
    assert np.mean(holds(filter_, *(f"no{i}" for i in range(20_000)))) < 0.005


def test_with_too_many_words_the_filter_grows_no_more_and_still_holds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "MOST_WORDS", 100)
    monkeypatch.setattr(filters, "_SLICE", 64)
    asked = [f"word{i}" for i in range(1000)]
    filter_ = of_texts(*asked)
    assert len(filter_) == -(-100 * filters.BITS_PER_WORD // (8 * filters.BLOCK)) * filters.BLOCK
    assert all(holds(filter_, *asked))
