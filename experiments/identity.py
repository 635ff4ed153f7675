"""The id of a run: a hash over everything that decides its numbers, so equal configs are one run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from errors import ConfigError
from experiments.backbones import short_name
from experiments.config import scientific
from experiments.paths import is_file
from experiments.schema import Config
from results.file_hash import remembered_sha256


def run_id(config: Config) -> str:
    """``<experiment>-<model>-s<seed>-<8 hex>``; the hex is a SHA-256 over the whole scientific config."""
    identity = scientific(config)
    identity["init"] = origin(config.init)
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{config.experiment}-{short_name(config.model.name)}-s{config.seed}-{digest}"


def origin(init: str | None) -> str | None:
    """The parent a run starts from: a run id as it is, a weights file by the hash of its content, wherever it lies."""
    if init is None or not is_file(init):
        return init
    path = Path(init).expanduser()
    if not path.is_file():
        raise ConfigError(f"init={init}: no such file")
    return f"sha256:{remembered_sha256(path)}"
