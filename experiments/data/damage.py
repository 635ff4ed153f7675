"""Why an image file cannot be read, in words. No torch."""

from __future__ import annotations

from PIL import UnidentifiedImageError


def cause_of(error: Exception) -> str:
    """The reason in an error of a file system or of Pillow, in one line and without the path."""
    if isinstance(error, UnidentifiedImageError):
        return "cannot be decoded"
    reason = error.strerror if isinstance(error, OSError) else None
    return (reason or str(error).strip() or type(error).__name__).splitlines()[0]
