"""The contents of table cells. A value holds its numbers and words; only a format turns numbers into digits.

A value consists of lines of words and numerals. Formats set the lines side by side; a narrow terminal sets them below
one another.
"""

from __future__ import annotations

from dataclasses import dataclass

from results.papers import Number
from results.statistics.estimates import Difference, Interval
from results.statistics.images import NewImages
from results.statistics.verdicts import Verdict
from run_format import NOT_RUN

LONGEST_STATE = 72  # characters of a state in a cell; the runs table has it in full
P_DECIMALS = 3
SMALLEST_P = 10.0**-P_DECIMALS  # that is shown
WAITING = "waiting"  # tone of a cell whose result does not exist yet


@dataclass(frozen=True)
class Numeral:
    """A number that is shown with a fixed number of decimals; ``signed`` ones also have a plus sign."""

    value: float
    decimals: int = 0
    signed: bool = False


Line = tuple[str | Numeral, ...]


class Value:
    """One cell's content."""

    @property
    def tone(self) -> str:
        """A word that a style can be tied to."""
        return ""

    @property
    def order(self) -> float | None:
        """What a column is sorted by: the number that the value begins with."""
        first = self.lines()[0][0]
        return first.value if isinstance(first, Numeral) else None

    @property
    def head(self) -> Value:
        """What stands in a cell's first line, where there is room for several; ``below`` is in the others."""
        return self

    @property
    def below(self) -> tuple[Line, ...]:
        return ()

    def lines(self) -> tuple[Line, ...]:
        raise NotImplementedError


@dataclass(frozen=True)
class Text(Value):
    """Words."""

    words: str
    tone: str = ""

    def lines(self) -> tuple[Line, ...]:
        return ((self.words,),)


NOTHING = Text("–")


@dataclass(frozen=True)
class State(Value):
    """The state of runs that have no result yet."""

    words: str
    tone = WAITING

    def lines(self) -> tuple[Line, ...]:
        shown = self.words
        if len(shown) > LONGEST_STATE:
            shown = shown[: LONGEST_STATE - 1].rstrip() + "…"
        return ((shown,),)


@dataclass(frozen=True)
class NotRun(Value):
    """``not run, 1240 h; run with smoke``: what the runs cost, where that is known, and the protocols under which
    their arm has been run."""

    hours: float | None = None
    protocols: tuple[str, ...] = ()
    tone = WAITING

    def lines(self) -> tuple[Line, ...]:
        price: Line = () if self.hours is None else (", ", Numeral(self.hours, 0 if self.hours >= 10 else 1), " h")
        if not self.protocols:
            return ((NOT_RUN, *price),)
        return ((NOT_RUN, *price, ";"), (f"run with {', '.join(self.protocols)}",))


@dataclass(frozen=True)
class Count(Value):
    """One number: parameters, FLOPs, a statistic. ``agrees`` says whether it rounds to a printed number beside it."""

    value: float
    decimals: int = 3
    signed: bool = False
    agrees: bool | None = None

    @property
    def tone(self) -> str:
        return {True: "agrees", False: "differs", None: ""}[self.agrees]

    def lines(self) -> tuple[Line, ...]:
        words = () if self.agrees is None else (f", {self.tone}",)
        return ((Numeral(self.value, self.decimals, self.signed), *words),)


@dataclass(frozen=True)
class Span(Value):
    """``1.20 [1.10, 1.30]``: a mean with the lowest and the highest seed, or ``−3.0 … 2.5``: only these two."""

    low: float
    high: float
    decimals: int
    mean: float | None = None

    def lines(self) -> tuple[Line, ...]:
        low, high = Numeral(self.low, self.decimals), Numeral(self.high, self.decimals)
        if self.mean is None:
            return ((low, " … ", high),)
        return ((Numeral(self.mean, self.decimals),), ("[", low, ", ", high, "]"))


@dataclass(frozen=True)
class SeedMean(Value):
    """``72.10 ± 0.21 (n = 3)``: a mean ± half of its interval; ``(1 of 3)`` where planned seeds are missing."""

    interval: Interval
    planned: int
    decimals: int

    def lines(self) -> tuple[Line, ...]:
        mean, half = self.interval.mean, self.interval.half
        spread = () if half is None else (" ± ", Numeral(half, self.decimals))
        return ((Numeral(mean, self.decimals), *spread), _seeds(self.interval.n, self.planned))


@dataclass(frozen=True)
class SeedRange(Value):
    """``97.2 [96.1, 98.0] (n = 3)``: a mean with the lowest and the highest seed; ``(2 of 3)`` where one is missing."""

    mean: float
    low: float
    high: float
    n: int
    planned: int
    decimals: int

    def lines(self) -> tuple[Line, ...]:
        low, high = Numeral(self.low, self.decimals), Numeral(self.high, self.decimals)
        span: Line = ("[", low, ", ", high, "]")
        seeds = _seeds(self.n, self.planned)
        return ((Numeral(self.mean, self.decimals),), *((span,) if self.n > 1 else ()), seeds)


@dataclass(frozen=True)
class PairedDifference(Value):
    """``+2.70 [+2.31, +3.09] (n = 3)``; it says so where there is no interval.

    mark: a sign behind it; against: the arm it is to, where that is not the column's; mcnemar: p of that test for a
    single pair.
    """

    difference: Difference
    decimals: int
    mark: str = ""
    against: str = ""
    mcnemar: float | None = None

    def lines(self) -> tuple[Line, ...]:
        mean, low, high = self.difference.mean, self.difference.low, self.difference.high
        first, n = (Numeral(mean, self.decimals, signed=True),), Numeral(self.difference.n)
        last: tuple[Line, ...] = ((f"to {self.against}",),) if self.against else ()
        if self.mcnemar is not None:
            p = Numeral(self.mcnemar, P_DECIMALS)
            return (first, ("(n = ", n, ", McNemar p = ", p, f"){self.mark}"), *last)
        if low is None or high is None:
            return (first, ("(n = ", n, f", no interval){self.mark}"), *last)
        return (first, _ends(low, high, self.decimals), ("(n = ", n, f"){self.mark}"), *last)


@dataclass(frozen=True)
class PValue(Value):
    """``0.012``, or ``< 0.001``."""

    p: float

    @property
    def order(self) -> float | None:
        return self.p

    def lines(self) -> tuple[Line, ...]:
        shown = Numeral(max(self.p, SMALLEST_P), P_DECIMALS)
        return (("< ", shown),) if self.p < SMALLEST_P else ((shown,),)


@dataclass(frozen=True)
class OnNewImages(Value):
    """``[+1.80, +3.60]``: the interval of a difference over seeds and images."""

    interval: NewImages
    decimals: int

    @property
    def order(self) -> float | None:
        return self.interval.mean

    def lines(self) -> tuple[Line, ...]:
        return (_ends(self.interval.low, self.interval.high, self.decimals),)


@dataclass(frozen=True)
class Printed(Value):
    """Numbers as a paper prints them, or its words in place of one. gain: what it prints beside them with an arrow.

    with_models: each is followed by the model it was printed for.
    """

    numbers: tuple[Number, ...]
    gain: Number | None = None
    with_models: bool = False

    def lines(self) -> tuple[Line, ...]:
        gain: Line = () if self.gain is None else (" (↑", *_printed(self.gain), ")")
        lines = [
            (*_printed(number), f" ({number.model})" if self.with_models and number.printed else "", *gain)
            for number in self.numbers
        ]
        *first, last = dict.fromkeys(tuple(part for part in line if part != "") for line in lines)
        return (*((*line, " /") for line in first), last)


@dataclass(frozen=True)
class PrintedDifference(Value):
    """The difference of two printed numbers, or ``side``, above or below, where that is all the papers say.

    against: the row it is to, where that is not the baseline; interval: where it lies if their runs scatter as ours;
    of: the metric, where a column has several.
    """

    difference: float | None
    decimals: int
    against: str = ""
    side: str = ""
    interval: tuple[float, float] | None = None
    of: str = ""

    def lines(self) -> tuple[Line, ...]:
        first: Line = (
            (self.side,) if self.difference is None else (Numeral(self.difference, self.decimals, signed=True),)
        )
        lines = [first]
        if self.interval is not None:
            lines.append(_ends(*self.interval, self.decimals))
        if self.against:
            lines.append((f"to {self.against}",))
        if self.of:
            lines.append((self.of,))
        return tuple(lines)


@dataclass(frozen=True)
class Judged(Value):
    """The verdict on a difference. prediction: where the papers' difference would lie if their runs were like ours."""

    verdict: Verdict
    prediction: tuple[float, float] | None = None
    decimals: int = 2

    @property
    def tone(self) -> str:
        return "" if self.verdict is Verdict.NO_NUMBER else self.verdict.value

    def lines(self) -> tuple[Line, ...]:
        if self.prediction is None:
            return ((self.verdict.value,),)
        return ((self.verdict.value,), _ends(*self.prediction, self.decimals))


@dataclass(frozen=True)
class PrintedVerdict:
    """The papers' difference, or only its side, and the verdict on ours; no value of its own."""

    difference: float | None
    decimals: int
    side: str
    verdict: Verdict

    def line(self) -> Line:
        printed = self.side if self.difference is None else Numeral(self.difference, self.decimals, signed=True)
        return ("papers ", printed, f": {self.verdict.value}")


@dataclass(frozen=True)
class Setting(Value):
    """A setting of a recipe beneath a printed one: ``0.05, equal``."""

    words: str | Numeral
    equal: bool

    @property
    def tone(self) -> str:
        verdict = Verdict.AGREES if self.equal else Verdict.EXCLUDED
        return verdict.value

    def lines(self) -> tuple[Line, ...]:
        return ((self.words, ", equal" if self.equal else ", different"),)


@dataclass(frozen=True)
class JudgedDifference(Value):
    """``+2.70 [+2.31, +3.09] (n = 3), different (p = 0.012); papers +2.7: agrees``"""

    difference: PairedDifference
    words: str
    p: float | None
    papers: tuple[PrintedVerdict, ...] = ()

    @property
    def tone(self) -> str:
        return self.papers[0].verdict.value if self.papers else ""

    @property
    def head(self) -> Value:
        return self.difference

    @property
    def below(self) -> tuple[Line, ...]:
        own: Line = (self.words,)
        if self.p is not None:
            sign = "" if self.p < SMALLEST_P else "= "
            own = (f"{self.words} (p {sign}", *PValue(self.p).lines()[0], ")")
        return (own, *(each.line() for each in self.papers))

    def lines(self) -> tuple[Line, ...]:
        *first, last = self.difference.lines()
        *own, end = self.below
        return (*first, (*last, ","), *((*line, ";") for line in own), end)


@dataclass(frozen=True)
class Several(Value):
    """Values below one another in one cell, each with its own tone; the column is sorted by the first."""

    values: tuple[Value, ...]

    def lines(self) -> tuple[Line, ...]:
        lines: list[Line] = []
        for number, value in enumerate(self.values, 1):
            *first, last = value.lines()
            lines += [*first, (*last, " /") if number < len(self.values) else last]
        return tuple(lines)


@dataclass(frozen=True)
class Reproduced(Value):
    """Our mean beneath a printed number: the mean, its difference to that number, and the verdict on it."""

    mean: SeedMean
    to_printed: float | None
    verdict: Verdict

    @property
    def tone(self) -> str:
        return self.verdict.value

    def lines(self) -> tuple[Line, ...]:
        first, (*seeds, last) = self.mean.lines()
        end = f", {self.verdict.value}"
        if self.to_printed is None:
            return (first, (*seeds, f"{last}{end}"))
        difference = Numeral(self.to_printed, self.mean.decimals, signed=True)
        return (first, (*seeds, f"{last},"), ("Δ ", difference, end))


@dataclass(frozen=True)
class JudgedOnce(Value):
    """What given weights are worth: the value ± half of its interval over images, how many images of which size, and
    the difference to the printed number."""

    value: float
    half: float | None
    images: int
    size: tuple[int, int]
    to_printed: float | None
    decimals: int

    def lines(self) -> tuple[Line, ...]:
        spread: Line = () if self.half is None else (" ± ", Numeral(self.half, self.decimals))
        height, width = self.size
        about: Line = ("(n = ", Numeral(self.images), f" images, {height} × {width} px)")
        first: Line = (Numeral(self.value, self.decimals), *spread)
        if self.to_printed is None:
            return (first, about)
        return (first, about, ("Δ ", Numeral(self.to_printed, self.decimals, signed=True)))


def _seeds(n: int, planned: int) -> Line:
    """``(n = 3)``, or ``(2 of 3)``"""
    return ("(n = ", Numeral(n), ")") if n == planned else ("(", Numeral(n), " of ", Numeral(planned), ")")


def _ends(low: float, high: float, decimals: int) -> Line:
    """``[+1.20, +3.40]``"""
    return ("[", Numeral(low, decimals, signed=True), ", ", Numeral(high, decimals, signed=True), "]")


def _printed(number: Number) -> Line:
    if number.value is not None and number.printed:
        return (Numeral(number.value, number.decimals),)
    return (number.note or NOTHING.words,)
