"""A page of hand-made sections with everything that is difficult to show: pairs of rows, hostile words, awkward paths."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from reports.content.page import Cell, Grid, Page, RunLine, Section, SourceFile
from reports.content.values import Count, Line, Numeral, Text, Value
from reports.figures import Drawing
from tests.reports.conftest import NASTY

HOSTILE = (
    """<script>document.title = "owned"</script><img src=x onerror="document.title='owned'"> & "quotes" '""" + NASTY
)
TONES = ("agrees", "inconclusive", "excluded", "not run", "not judged", "waiting", "")
ODD_FOLDER = "runs & <more> 50% #1 'a'"


def page(folder: Path) -> Page:
    """Its runs' files are made in ``folder``."""
    sections = (verdicts(folder), pairs(folder), empty())
    return Page("tricky", f"Tricky {HOSTILE}", sections, f"All of **it**. {HOSTILE}", (f"x is left out: {HOSTILE}.",))


@dataclass(frozen=True)
class Shown(Value):
    """A cell of any content."""

    content: Line
    tone: str = ""

    def lines(self) -> tuple[Line, ...]:
        return (self.content,)


def verdicts(folder: Path) -> Section:
    """An ablation with every tone, more than twenty runs, and rows whose order as text and as numbers differ."""
    values = (9.5, 100.25, -3.0, None, 71.0, 71.0, 8.25)
    runs = [run(folder, n, f"arm {n // 3}") for n in range(24)]
    rows = []
    for n, (tone, value) in enumerate(zip(TONES, values)):
        ids = tuple(run.id for run in runs[3 * n : 3 * n + 3])
        words: Line = ("failed: " + HOSTILE,)
        if value is not None:
            words = (Numeral(value, 2), " ± ", Numeral(0.5, 1), " (n = ", Numeral(3), ")")
        shown = Cell(Shown(words), ids)
        change: Line = (Numeral(value, 1, signed=True),) if value else ("–",)
        more = Cell(Shown(change), (*ids, runs[0].id), ("a",) if n % 2 else ("a", "b"))
        label = Cell(Text(f"Arm {'cab'[n % 3]}{n} {HOSTILE if n == 6 else ''}"))
        rows.append(((label, shown, more, Cell(Text(tone, tone=tone))),))
    return Section(
        "verdicts",
        "Verdicts",
        question=f"Is `{HOSTILE}` *text*?",
        about="Many words. " * 20,
        cautions=("Runs of **different code** are averaged here.", HOSTILE),
        grid=Grid(("Arm", "Accuracy (%)", "Δ", "Verdict"), "lrrl", tuple(rows)),
        legend=("**Strong (`code`) words**, *others*.",),
        places=(HOSTILE,),
        remarks={"a": f"printed twice: {HOSTILE}", "b": "otherwise"},
        drawings=(Drawing("curve", "A curve", HOSTILE, {"curve.png": png(), "curve.pdf": b"%PDF", "curve.csv": b"a"}),),
        runs=tuple(runs),
        configs={"arm 0": f"note: {HOSTILE}\n", "arm 1": "{}\n"},
        macros=((("tricky", "a"), Count(9.5, 2)),),
        records=({"arm": "a"},),
        warnings=(HOSTILE,),
    )


def pairs(folder: Path) -> Section:
    """The papers' rows with ours beneath, wider than any screen; all of ours have the same run."""
    shared = run(folder, 99, "ours")
    groups = []
    for n, name in enumerate(("delta", "Alpha", "charlie", "bravo", "alpha 10", "alpha 9")):
        number = Shown((Numeral(n + 0.5, 1),), "waiting" if n == 3 else "")
        printed = Text("–") if n == 2 else Count(10.0 * (3 - n), 1)
        groups.append((
            (Cell(Text(name)), *[Cell(printed)] * 12), (Cell(Text("ours")), *[Cell(number, (shared.id,))] * 12),
        ))  # fmt: skip
    header = ("Model", *(f"A long column's name {n}" for n in range(12)))
    return Section("table-1", "Papers, Table 1", grid=Grid(header, "l" + "r" * 12, tuple(groups)), runs=(shared,))


def empty() -> Section:
    """A figure alone, not drawn yet."""
    return Section("fig_2", "Papers, Fig. 2", warnings=("figure: not run",))


def run(folder: Path, n: int, arm: str) -> RunLine:
    own = folder / ODD_FOLDER / f"run-{n}"
    own.mkdir(parents=True)
    lines = {"config.yaml": None, "metrics.jsonl": 12 + n, "summary.json": None}
    for name in lines:
        (own / name).write_text("{}")
    sources = tuple(SourceFile(name, own / name, line) for name, line in lines.items())
    state, status = ("done", "done") if n % 5 else ("failed", f"failed: {HOSTILE}")
    return RunLine(
        f"scenes-nano-s{n % 3}-{n:08x}", arm, n % 3, state, status, step=None if n == 7 else 10 * n, images_per_s=85,
        commit=f"{n:040x}", notes=HOSTILE, sources=sources,
    )  # fmt: skip


def png() -> bytes:
    """Four pixels by two."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * 10)
    return b"\x89PNG\r\n\x1a\n" + b"".join((
        chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 8, 0, 0, 0, 0)), chunk(b"IDAT", rows), chunk(b"IEND", b""),
    ))  # fmt: skip
