"""Values as plain text, the same for Markdown, LaTeX, HTML, macros and the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from reports.content.values import Line, Numeral, Value


def text(value: Value) -> str:
    """A whole value in one line."""
    return " ".join(map(line_text, value.lines()))


def line_text(line: Line) -> str:
    return "".join(part if isinstance(part, str) else "".join(digits(part)) for part in line)


def digits(numeral: Numeral) -> tuple[str, str]:
    """What stands before the decimal point and from it on: a true minus sign, and no negative zero."""
    whole, point, fraction = f"{abs(numeral.value):.{numeral.decimals}f}".partition(".")
    sign = "−" if numeral.value < 0 else "+" if numeral.signed else ""
    zero = not (whole + fraction).strip("0")
    return ("" if zero else sign) + whole, point + fraction


def signed(value: float, decimals: int) -> str:
    """A difference within a sentence."""
    return line_text((Numeral(value, decimals, signed=True),))


def parts(value: Value) -> Iterator[str | Numeral]:
    """Words and numerals of a value as one line, words that follow one another joined."""
    words = ""
    for number, line in enumerate(value.lines()):
        for part in ((" ",) if number else ()) + line:
            if isinstance(part, str):
                words += part
                continue
            if words:
                yield words
            words = ""
            yield part
    if words:
        yield words
