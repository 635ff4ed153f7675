"""The table of findings in README, from the committed results; ``python -m tests.readme_findings`` writes it there.

A row per claim: what the papers print, and the verdicts of the findings' page by sweep.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from reports import commands
from reports.content import compose
from reports.content.text import text
from results import archive

README = Path(__file__).resolve().parents[1] / "README.md"
TABLE = re.compile(r"(?<=<!-- findings -->\n\n)(\|.*\n)+")


def table() -> str:
    """The lines of the table."""
    committed = [commands._labelled(label, None) for label in archive.labels()]
    section = compose.page("findings", committed, figures=False).sections[0]
    lines = ["| Claim | Papers' Δ | Verdict here, by sweep |", "| --- | --- | --- |"]
    for rows, (claim, records) in zip(
        section.grid.groups, groupby(section.records, key=lambda record: record["claim"])
    ):
        printed = [words for row in rows if (words := text(row[1].value)) != "–"]
        verdicts: dict[str, list[str]] = {}
        for record in records:
            of_sweep = verdicts.setdefault(record["sweep"], [])
            if record["verdict"] not in of_sweep:
                of_sweep.append(record["verdict"])
        found = [f"{sweep}: {', '.join(words)}" if sweep else ", ".join(words) for sweep, words in verdicts.items()]
        lines.append(f"| {claim} | {', '.join(printed) or '–'} | {'; '.join(found)} |")
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    README.write_text(TABLE.sub(lambda _: table(), README.read_text(encoding="utf-8")), encoding="utf-8")
