"""Packages of the extra ``clients``, which a few tests need and nothing else does."""

import os
from importlib import import_module
from types import ModuleType

import pytest


def client(name: str) -> ModuleType:
    """A module of such a package. Without the package the test is skipped, but in CI it fails."""
    return (
        import_module(name)
        if os.environ.get("CI") == "true"
        else pytest.importorskip(name, reason=f"needs {name}: make clients")
    )
