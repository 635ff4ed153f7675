"""Pages about learned offsets, drawn from the files that ``experiments/offsets.py`` leaves. Never imports torch."""

DIRECTIONS = ("horizontal", "vertical")
