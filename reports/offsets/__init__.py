"""Pages about learned offsets, drawn from the files that ``measurements/offsets`` writes. Never imports torch."""

DIRECTIONS = ("horizontal", "vertical")
