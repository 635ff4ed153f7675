"""Estimates, verdicts on published numbers, and what a difference is worth on new images. Never imports torch."""
