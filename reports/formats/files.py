"""A page as files: Markdown, HTML, LaTeX and CSV, and every figure as PNG, PDF and CSV.

The same page gives the same bytes: nothing written here carries a time stamp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import atomic_file
from reports.content.page import Page
from reports.formats import html
from reports.formats.macros import macros
from reports.formats.markup import csv, environment

OF_PAGE = ("report.md", "report.html", "macros.tex")  # files of a page as a whole; all others are a section's


def write(page: Page, out_dir: Path) -> list[Path]:
    """Writes ``page`` into ``out_dir`` and returns the files, ``report.md`` first."""
    return [atomic_file.write(out_dir / name, content) for name, content in contents(page, out_dir).items()]


def contents(page: Page, out_dir: Path) -> dict[str, str | bytes]:
    """Name → content of the files of ``page`` in ``out_dir``, to which links of the HTML page are relative.

    A page of one section has its table as ``table.tex`` (for ``\\input``), ``table_alone.tex`` and ``table.csv``;
    one of several has them per section, and figures too, in a folder of the section's name, except for the section that
    the page is about.
    """
    import pandas as pd

    prefix = prefixes(page)
    made: dict[str, str | bytes] = {
        "report.md": template("report.md.j2", page=page, prefix=prefix),
        "report.html": html.document(page, out_dir),
        "macros.tex": template("macros.tex.j2", page=page, macros=[macros(section) for section in page.sections]),
    }
    for section in page.sections:
        where = prefix[section.name]
        if section.grid:
            made[f"{where}table.tex"] = template("table.tex.j2", section=section)
            made[f"{where}table_alone.tex"] = template("table_alone.tex.j2", section=section)
        if section.records:
            made[f"{where}table.csv"] = csv(pd.DataFrame(list(section.records)))
        made |= {f"{where}{name}": content for drawing in section.drawings for name, content in drawing.files.items()}
    return made


def prefixes(page: Page) -> dict[str, str]:
    """Section's name → what stands before the names of its files."""
    return {section.name: "" if page.is_own(section) else f"{section.name}/" for section in page.sections}


def template(name: str, **names: Any) -> str:
    return environment().get_template(name).render(**names)
