"""Pages of measured effective receptive fields. Never imports torch."""
