"""The colours of the page against what they stand on, light and dark: WCAG 2.2, level AA.

All colours are custom properties, and none but shapes are seen through, so the style sheets say what there is.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[1] / "query" / "assets"
CSS = re.sub(r"/\*.*?\*/", "", "".join(file.read_text() for file in sorted(ASSETS.glob("*.css"))), flags=re.DOTALL)
RULES = [(where.strip(), what) for where, what in re.findall(r"([^{}]+)\{([^{}]*)\}", CSS)]
NAMED = re.findall(r"--([\w-]+):\s*light-dark\((#[0-9a-f]{6}),\s*(#[0-9a-f]{6})\)", CSS)
LEVELS = {"fatal", "error", "warning", "notice", "info", "debug"}
#: What text in any colour may stand on, besides the tints below.
GROUNDS = {"back", "card", "hover"}
TEXT, SHAPE = 4.5, 3.0

Colour = tuple[float, ...]
schemes = pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])


def palette(scheme: int) -> dict[str, Colour]:
    """Return the colours by their names, each as three numbers up to 1."""
    return {name: colour((light, dark)[scheme]) for name, light, dark in NAMED if name != "bar"}


def colour(text: str) -> Colour:
    return tuple(int(text[at : at + 2], 16) / 255 for at in (1, 3, 5))


def over(top: Colour, part: float, ground: Colour) -> Colour:
    return tuple(part * one + (1 - part) * other for one, other in zip(top, ground, strict=True))


def contrast(one: Colour, other: Colour) -> float:
    """Return the contrast ratio of WCAG."""
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(of: Colour) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in of]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def declared(prop: str) -> dict[str, str]:
    """Return what the rules say of a property, by their selectors."""
    found = {where: re.search(rf"(?:^|[;\s]){prop}:\s*([^;]+)", what) for where, what in RULES}
    return {where: match[1].strip() for where, match in found.items() if match}


def name_in(value: str) -> str | None:
    match = re.fullmatch(r"var\(--([\w-]+)\)", value)
    return match[1] if match else None


TEXTS = {name for value in declared("color").values() if (name := name_in(value))}


def test_a_known_ratio() -> None:
    assert contrast(colour("#000000"), colour("#ffffff")) == pytest.approx(21)
    assert contrast(colour("#777777"), colour("#ffffff")) == pytest.approx(4.48, abs=0.005)


def test_the_style_sheets_name_all_their_colours() -> None:
    assert set(declared("color").values()) <= {"inherit", *(f"var(--{name})" for name in TEXTS)}
    assert TEXTS - {"level"} | LEVELS <= palette(0).keys()
    assert set(filter(None, map(name_in, declared("background").values()))) == {*GROUNDS, "mark", "accent", "error"}
    shapes = {where for where, value in declared("opacity").items() if float(value) < 1}
    assert shapes == {"aside rect"}
    assert not re.search(r"#[0-9a-f]{3,8}\b(?![^{}]*\{)", re.sub(r"light-dark\([^)]*\)", "", CSS))


@schemes
def test_text_is_told_from_its_ground(scheme: int) -> None:
    colours = palette(scheme)
    texts = {"text"} | TEXTS - {"level", "card"} | LEVELS
    weak = {
        (name, ground): ratio
        for name, ground in product(sorted(texts), sorted(GROUNDS))
        if (ratio := round(contrast(colours[name], colours[ground]), 2)) < TEXT
    }
    assert weak == {}


@schemes
def test_text_is_told_from_what_fills_its_ground(scheme: int) -> None:
    colours = palette(scheme)
    filled = {
        (where, name_in(value)): name_in(declared("color").get(where, "")) or "text"
        for where, value in declared("background").items()
        if name_in(value) not in {None, *GROUNDS}
    }
    assert len(filled) >= 4  # the main button, a chosen value, what is new, a mark
    for (where, ground), text in filled.items():
        assert contrast(colours[text], colours[str(ground)]) >= TEXT, where


@schemes
def test_text_is_told_from_a_tint(scheme: int) -> None:
    colours = palette(scheme)
    [current] = [value for value in declared("background").values() if "accent" in value and "mix" in value]
    found = re.search(r"(\d+)%", current)
    assert found
    ground = over(colours["accent"], int(found[1]) / 100, colours["card"])
    for name in ("text", "soft", *LEVELS):
        assert contrast(colours[name], ground) >= TEXT, f"{name} of the current record"
    part = float(declared("opacity")["aside rect"])
    for level, below in product(LEVELS | {"soft"}, ("back", "hover")):
        bar = over(colours[level], part, colours[below])
        for name in ("text", "soft", level):
            assert contrast(colours[name], bar) >= TEXT, f"{name} on the bar of {level} over {below}"


@schemes
def test_shapes_and_edges_of_controls_are_told_from_their_ground(scheme: int) -> None:
    colours = palette(scheme)
    assert name_in(declared("border")["input, select, button, textarea"].split()[-1]) == "edge"
    assert name_in(declared("outline")[":focus-visible"].split()[-1]) == "accent"
    for name, ground in product(("edge", "accent"), GROUNDS):
        assert contrast(colours[name], colours[ground]) >= SHAPE, f"{name} on {ground}"
    bars = {f"bar {light}": colour((light, dark)[scheme]) for name, light, dark in NAMED if name == "bar"}
    assert len(bars) == 4
    for name, bar in (bars | {level: colours[level] for level in ("fatal", "notice")}).items():
        assert contrast(bar, colours["card"]) >= SHAPE, name
