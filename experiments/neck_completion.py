"""The rule between the settings of a feature pyramid, which segmentation and detection share. No torch."""

from __future__ import annotations

from errors import ConfigError
from experiments.dense_schema import Detect, Segment


def complete_neck(section: str, settings: Segment | Detect) -> None:
    """Gives ATMFPN its offset mode; section: the name of the settings.

    Raises ConfigError for an offset mode of a neck that has no offsets.
    """
    if settings.neck == "atmfpn":
        settings.neck_offsets = settings.neck_offsets or "axial"
    elif settings.neck_offsets is not None:
        raise ConfigError(
            f"{section}.neck_offsets={settings.neck_offsets}: {section}.neck={settings.neck} has no offsets (valid with: "
            "atmfpn)"
        )
