"""Checks Python, the installed packages, and the checkout."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module, metadata

from doctor.finding import OK, PROBLEM, ROOT, TO_INSTALL, WARNING, CheckInputs, Finding, enumeration

OLDEST_PYTHON = (3, 10)


def python(inputs: CheckInputs) -> Iterator[Finding]:
    verdict = OK if sys.version_info >= OLDEST_PYTHON else PROBLEM
    message = f"{sys.version.split()[0]} ({'.'.join(map(str, OLDEST_PYTHON))} or newer is needed), {sys.executable}"
    yield Finding("python", verdict, message, "make PYTHON=python3.12 demo sets up another one")


def packages(inputs: CheckInputs) -> Iterator[Finding]:
    """Compares the installed packages with the requirements of pyproject.toml."""
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = toml.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, verdict, requirements, user in (
        ("packages", PROBLEM, [*project["dependencies"], *extras["suite"]], "the suite"),
        ("development packages", WARNING, extras["dev"], "make test"),
    ):
        unmet = [reason for reason in map(_why_unmet, requirements) if reason]
        message = f"{len(requirements) - len(unmet)} of {len(requirements)} that {user} needs{enumeration(unmet)}"
        yield Finding(name, verdict if unmet else OK, message, TO_INSTALL)


def _why_unmet(requirement: str) -> str:
    """Why a requirement is not met; empty if it is."""
    name = re.split(r"[^\w.-]", requirement)[0]
    if (installed := version(name)) is None:
        return f"{name} missing"
    from packaging.requirements import Requirement

    bounds = Requirement(requirement).specifier
    return "" if bounds.contains(installed, prereleases=True) else f"{name} {installed} (needed {bounds})"


def locked_versions(inputs: CheckInputs) -> Iterator[Finding]:
    """Whether the installed versions are those that the suite was tested with."""
    locked = set(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    # 2.6.0+cpu is 2.6.0
    installed = {name: number.partition("+")[0] for name, _ in locked if (number := version(name))}
    differing = sorted(f"{name} {number}" for name, number in installed.items() if (name, number) not in locked)
    message = f"{len(differing)} of {len(installed)} installed packages differ from requirements.lock"
    advice = "pip install -r requirements.lock, to run what was tested"
    yield Finding("locked versions", WARNING if differing else OK, message + enumeration(differing), advice)


def code(inputs: CheckInputs) -> Iterator[Finding]:
    from experiments.folder.provenance import checkout

    commit, dirty = map(checkout().get, ("commit", "dirty"))
    if commit:
        message = f"commit {commit[:12]}, atm/ and experiments/ {'changed since' if dirty else 'unchanged'}"
        advice = "commit before runs that matter: each run records that the code was changed"
    else:
        message = f"no git, or no commit of {ROOT}: runs cannot record their commit"
        advice = "install git and clone the repository; `git status` in it says more"
    yield Finding("code", OK if dirty is False else WARNING, message, advice)


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
