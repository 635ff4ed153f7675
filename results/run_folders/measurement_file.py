"""What the JSON files of measurements in a run's folder have in common: what has to be in them, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from errors import SuiteError

OF_TRAINED: Mapping[str, type] = {"code_fingerprint": str, "data_fingerprint": str}


class MeasuredError(SuiteError):
    """Files of a measurement that are missing or damaged."""


def need(name: str, content: Any, keys: Mapping[str, type]) -> None:
    """Raises ValueError where a mapping lacks one of ``keys`` or has another type under it. name: of the mapping."""
    if not isinstance(content, dict):
        raise ValueError(f"{name} is not a mapping")
    for key, kind in keys.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{name} has no {key}" if key not in content else f"{name} has a wrong {key}")


def of_another(about: Mapping[str, Any], run: str, trained: Mapping[str, Any], weights_sha256: str = "") -> str:
    """Why a measurement is not of this training of a run; empty where it is, as far as that is known.

    about: has the run's ``name``, fingerprints under ``trained``, and ``weights_sha256``. trained: the fingerprints of
    code and data that the run records now; one that it does not record is not compared. weights_sha256: of its final
    weights, empty where they are not compared.
    """
    if about["name"] != run:
        return f"measured of another run, {about['name']}"
    if any(about["trained"][kind] != trained[kind] for kind in OF_TRAINED if trained.get(kind)):
        return "measured of another run: this run was trained with other code or data; --fresh measures again"
    if weights_sha256 and about["weights_sha256"] != weights_sha256:
        return "measured of another training: its weights are not those of this run; --fresh measures again"
    return ""
