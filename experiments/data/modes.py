"""Images of every mode that Pillow knows as 8-bit RGB, each by its own range of values. No torch."""

from __future__ import annotations

from PIL import Image

EIGHT_BITS = ("RGB", "1", "L", "P", "RGBA", "LA", "PA", "RGBX", "CMYK", "YCbCr", "HSV")
PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}  # with alpha multiplied in → without
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB; 16 bits are scaled by 255 / 65535. An alpha channel is dropped, not blended.

    Raises ValueError for a mode whose values have no range that is the same for every file.
    """
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format == "PNG"):  # a PNG's integers have 16 bits
        return _scaled(image).convert("RGB")
    if image.mode in PREMULTIPLIED:
        image = image.convert(PREMULTIPLIED[image.mode])
    if image.mode not in EIGHT_BITS:
        raise ValueError(f"Pillow's mode {image.mode} has no range of values that every file shares: convert it to RGB")
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    import numpy as np

    levels = np.asarray(image).astype(np.float64) * (255 / 65535)
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))
