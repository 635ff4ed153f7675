"""Python, the packages, and the code itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module, metadata

from doctor.finding import OK, PROBLEM, ROOT, TO_INSTALL, WARNING, Asked, Finding, listed

OLDEST_PYTHON = (3, 10)


def python(asked: Asked) -> Iterator[Finding]:
    verdict = OK if sys.version_info >= OLDEST_PYTHON else PROBLEM
    found = f"{sys.version.split()[0]} ({'.'.join(map(str, OLDEST_PYTHON))} or newer is needed), {sys.executable}"
    yield Finding("python", verdict, found, "make PYTHON=python3.12 demo sets up another")


def packages(asked: Asked) -> Iterator[Finding]:
    """What pyproject.toml asks for against what is installed."""
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = toml.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, verdict, needed, by in (
        ("packages", PROBLEM, [*project["dependencies"], *extras["suite"]], "the suite"),
        ("development packages", WARNING, extras["dev"], "make test"),
    ):
        lacking = [told for told in map(_lacks, needed) if told]
        found = f"{len(needed) - len(lacking)} of {len(needed)} that {by} needs{listed(lacking)}"
        yield Finding(name, verdict if lacking else OK, found, TO_INSTALL)


def _lacks(requirement: str) -> str:
    """What keeps a requirement from being met; empty where it is."""
    name = re.split(r"[^\w.-]", requirement)[0]
    if (there := version(name)) is None:
        return f"{name} missing"
    from packaging.requirements import Requirement

    bounds = Requirement(requirement).specifier
    return "" if bounds.contains(there, prereleases=True) else f"{name} {there} (needed {bounds})"


def locked_versions(asked: Asked) -> Iterator[Finding]:
    """Whether the versions are those the suite was tested with."""
    locked = set(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    there = {name: number.partition("+")[0] for name, _ in locked if (number := version(name))}  # 2.6.0+cpu is 2.6.0
    other = sorted(f"{name} {number}" for name, number in there.items() if (name, number) not in locked)
    found = f"{len(other)} of {len(there)} installed packages differ from requirements.lock{listed(other)}"
    advice = "pip install -r requirements.lock, to run what was tested"
    yield Finding("locked versions", WARNING if other else OK, found, advice)


def code(asked: Asked) -> Iterator[Finding]:
    from experiments.folder.provenance import checkout

    commit, dirty = map(checkout().get, ("commit", "dirty"))
    if commit:
        found = f"commit {commit[:12]}, atm/ and experiments/ {'changed since' if dirty else 'unchanged'}"
        advice = "commit before runs that count: each one notes that it was dirty"
    else:
        found = f"no git, or no commit of {ROOT}: runs cannot say of which one they are"
        advice = "install git and clone the repository; `git status` there says more"
    yield Finding("code", OK if dirty is False else WARNING, found, advice)


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
