"""A page of hand-made sections with everything that is hard to show: pairs of rows, hostile words, awkward paths."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from reports.document import Cell, Grid, Page, Run, Section, Source
from reports.figures import Drawing
from tests.reports.conftest import NASTY

HOSTILE = (
    """<script>document.title = "owned"</script><img src=x onerror="document.title='owned'"> & "quotes" '""" + NASTY
)
TONES = ("agrees", "within noise", "contradicts", "not run", "not judged", "waiting", "")
ODD_FOLDER = "runs & <more> 50% #1 'a'"


def page(folder: Path) -> Page:
    """Its runs' files are made in ``folder``."""
    return Page(
        "tricky", f"Tricky {HOSTILE}", (verdicts(folder), pairs(folder), empty()), lead=(f"All of **it**. {HOSTILE}",)
    )


def verdicts(folder: Path) -> Section:
    """An ablation with every tone, more than twenty runs, and rows whose order as text and as numbers differ."""
    values = (9.5, 100.25, -3.0, None, 71.0, 71.0, 8.25)
    runs = [run(folder, n, f"arm {n // 3}") for n in range(24)]
    rows = []
    for n, (tone, value) in enumerate(zip(TONES, values)):
        mine = tuple(one.id for one in runs[3 * n : 3 * n + 3])
        shown = Cell("failed: " + HOSTILE if value is None else f"{value:.2f} ± 0.5 (n = 3)", value, mine)
        more = Cell(f"{value:+.1f}" if value else "–", value, (*mine, runs[0].id), ("a",) if n % 2 else ("a", "b"))
        rows.append(((Cell(f"Arm {'cab'[n % 3]}{n} {HOSTILE if n == 6 else ''}"), shown, more, Cell(tone, tone=tone)),))
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
        macros={"atmTrickyA": "9.50"},
        records=({"arm": "a"},),
        warnings=(HOSTILE,),
    )


def pairs(folder: Path) -> Section:
    """The papers' rows with ours beneath, wider than any screen; one run is behind all of ours."""
    one = run(folder, 99, "ours")
    groups = []
    for n, name in enumerate(("delta", "Alpha", "charlie", "bravo", "alpha 10", "alpha 9")):
        ours = tuple(Cell(f"{n}.5", n + 0.5, (one.id,), tone="waiting" if n == 3 else "") for _ in range(12))
        theirs = tuple(Cell("–") if n == 2 else Cell(f"{10 * (3 - n)}.0", 10.0 * (3 - n)) for _ in range(12))
        groups.append(((Cell(name), *theirs), (Cell("ours"), *ours)))
    header = ("Model", *(f"A long column's name {n}" for n in range(12)))
    return Section("table-1", "Papers, Table 1", grid=Grid(header, "l" + "r" * 12, tuple(groups)), runs=(one,))


def empty() -> Section:
    """A figure alone, not drawn yet."""
    return Section("fig_2", "Papers, Fig. 2", warnings=("figure: not run",))


def run(folder: Path, n: int, arm: str) -> Run:
    own = folder / ODD_FOLDER / f"run-{n}"
    own.mkdir(parents=True)
    lines = {"config.yaml": None, "metrics.jsonl": 12 + n, "summary.json": None}
    for name in lines:
        (own / name).write_text("{}")
    sources = tuple(Source(name, own / name, line) for name, line in lines.items())
    state = "done" if n % 5 else f"failed: {HOSTILE}"
    step = "–" if n == 7 else str(10 * n)
    return Run(f"scenes-nano-s{n % 3}-{n:08x}", arm, n % 3, state, step, "–", "85", f"{n:040x}", HOSTILE, sources)


def png() -> bytes:
    """Four pixels by two."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * 10)
    return b"\x89PNG\r\n\x1a\n" + b"".join((
        chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 8, 0, 0, 0, 0)), chunk(b"IDAT", rows), chunk(b"IEND", b""),
    ))  # fmt: skip
