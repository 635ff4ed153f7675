"""Whether the nodes of a cluster see the files that a launch writes."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from errors import ConfigError
from sweeps.slurm.cluster import Limits

NETWORK = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "cifs",
    "smb3",
    "afs",
    "panfs",
    "wekafs",
    "pvfs2",
    "orangefs",
    "9p",
    "virtiofs",
)


def check(path: Path, name: str, limits: Limits) -> None:
    """Raises ConfigError where a path is on a disk of this machine and nodes are other machines.

    A disk that this machine exports to the nodes under the same path cannot be told from others: set ``slurm.shared``.
    """
    kind = file_system(path)
    others = sorted(limits.hosts - own_names())
    if others and not (kind in NETWORK or kind.startswith("fuse.")):
        raise ConfigError(
            f"{name} {path} is on a disk of this machine ({kind}), which {others[0]} and other nodes do not see; "
            "choose a shared file system, or set slurm.shared=true if they do"
        )


def own_names() -> set[str]:
    name = socket.gethostname()
    return {name, name.partition(".")[0], socket.getfqdn(), "localhost"}


def file_system(path: Path) -> str:
    """The kind of file system that a path, or the nearest folder above it that exists, is on."""
    path = path.resolve()
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted, _, described = line.partition(" - ")
        point = re.sub(r"\\(040|011|012|134)", lambda match: chr(int(match[1], 8)), mounted.split()[4])
        if path.is_relative_to(point) and len(point) >= len(
            best
        ):  # of two mounts on the same point, the later is visible
            best, kind = point, described.split()[0]
    return kind
