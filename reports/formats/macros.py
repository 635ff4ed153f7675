"""Names for numbers in running text: ``\\atmAblationOffsetsSmokeAxialDelta`` stands for ``+45.30``."""

from __future__ import annotations

import re
import unicodedata

from errors import SuiteError
from reports.content.page import MacroName, Section
from reports.content.text import text

PREFIX = "atm"
SIGNS = str.maketrans({"†": "Dagger", "‡": "DoubleDagger", "*": "Star"})
DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


class MacroError(SuiteError):
    """Two numbers that would have one name."""


def macros(section: Section) -> dict[str, str]:
    """Command's name → text. Raises MacroError where two numbers have one name."""
    texts: dict[str, str] = {}
    for parts, value in section.macros:
        name = command(parts)
        if name in texts:
            raise MacroError(f"two numbers would be called \\{name} in LaTeX: give one of their arms another name")
        texts[name] = text(value)
    return texts


def command(parts: MacroName) -> str:
    """A LaTeX command's name, which has letters only: words begin with a capital, digits are spelled out."""
    spelled = unicodedata.normalize("NFKC", " ".join(parts)).translate(SIGNS)  # ① becomes 1
    words = re.findall(r"[A-Za-z]+|\d", spelled)
    return PREFIX + "".join(DIGITS[int(word)] if word.isdigit() else word[0].upper() + word[1:] for word in words)
