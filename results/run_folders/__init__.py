"""Reads run folders: one folder at a time (``recorded_run``), many as rows of a table (``rows``), with a cache."""
