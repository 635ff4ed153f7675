"""One run: from a frozen config to a summary."""
