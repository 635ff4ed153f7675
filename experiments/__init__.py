"""One run: from a frozen config to a summary."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # of the checkout, or of a copy of the code
