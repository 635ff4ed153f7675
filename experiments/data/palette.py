"""Colours of classes for pictures, as many as are asked for and the same every time."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

TURN = 0.618034  # of the colour circle from one class to the next, so that neighbours in a list lie far apart
LIGHT, FULL = (0.95, 0.70, 0.45), (0.85, 0.55)  # value and saturation in HSV, class by class


def palette(classes: int) -> NDArray[np.uint8]:
    """uint8 [classes, 3], no two alike."""
    colours = [
        colorsys.hsv_to_rgb(number * TURN % 1, FULL[number // 3 % 2], LIGHT[number % 3]) for number in range(classes)
    ]
    return np.array(np.round(np.array(colours).reshape(-1, 3) * 255), np.uint8)
