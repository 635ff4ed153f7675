"""Every package that the code imports is declared: of ``atm`` by the wheel, of the rest by the extras."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.test_layering import ROOT, imported, modules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = {  # of modules, where a package has another name
    "PIL": "pillow", "yaml": "pyyaml", "markdown_it": "markdown-it-py", "segmentation_models_pytorch":
    "segmentation-models-pytorch", "pytest_timeout": "pytest-timeout", "_pytest": "pytest", "huggingface_hub": "timm",
    "mpl_toolkits": "matplotlib",
}  # fmt: skip
NOT_PACKAGES = {"tests", "conftest"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(*extras: str) -> set[str]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {re.match(r"[\w.-]+", entry)[0].lower() for entries in lists for entry in entries}


def foreign(paths: list[Path]) -> dict[str, set[str]]:
    """Package → the files that import it, of those that are neither Python's nor ours."""
    ours = {name.partition(".")[0] for name in modules()} | NOT_PACKAGES
    found: dict[str, set[str]] = {}
    for path in paths:
        for _, target in imported(path):
            top = target.partition(".")[0]
            if top not in ours | set(sys.stdlib_module_names) | {""}:
                found.setdefault(NAMES.get(top, top).lower(), set()).add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("paths", "extras", "bundled"),
    [
        ([path for name, path in modules().items() if name.startswith("atm")], ["drawing"], {"triton"}),
        (list(modules().values()), ["drawing", "suite", "shards", "completion", "trackers"], {"triton"}),
        (
            sorted((ROOT / "tests").rglob("*.py")),
            ["drawing", "suite", "dev", "clients", "trackers"],
            {"triton", "tomli"},
        ),
    ],
    ids=["atm", "suite", "tests"],
)
def test_every_import_is_declared(paths, extras, bundled):
    """bundled: what another package brings: torch brings Triton where there is a GPU, mypy a parser of TOML."""
    undeclared = {name: files for name, files in foreign(paths).items() if name not in declared(*extras) | bundled}
    assert undeclared == {}
    assert foreign(paths), "something is imported"


def test_the_page_of_the_package_has_links_that_work_anywhere():
    page = (ROOT / PROJECT["readme"]).read_text()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert links and [link for link in links if not link.startswith("https://")] == []
