"""Settings of recipes under the names of the papers' tables of settings, in ``recipes.csv``.

Resolving a recipe needs the schema of experiments; the settings are committed so that reports, which never load it, can
show them. ``python run.py collect=complexity`` writes them again, with the counts of models.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import atomic_file
from errors import SuiteError

RECIPES = Path(__file__).resolve().parent / "recipes.csv"
COLUMNS = ("recipe", "model", "setting", "value")
Settings = Mapping[tuple[str, str, str], str]  # recipe, variant of the model, setting → value in words


class RecipesError(SuiteError):
    """Committed settings that cannot be read."""


def load() -> dict[tuple[str, str, str], str]:
    """(recipe, variant, setting) → value."""
    with RECIPES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {(row["recipe"], row["model"], row["setting"]): row["value"] for row in rows}
    except KeyError as error:
        raise RecipesError(f"{RECIPES.name}: needs columns {', '.join(COLUMNS)}: no {error}") from None


def write(settings: Settings) -> Path:
    """Replaces the committed settings."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows((*key, value) for key, value in settings.items())
    return atomic_file.write(RECIPES, text.getvalue())
