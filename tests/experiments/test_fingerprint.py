"""The fingerprint of the code: what moves it, and what must not."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.config import ROOT, resolve
from experiments.folder import fingerprint
from experiments.folder.fingerprint import COMPUTES, EXEMPT, code_fingerprint, covered, run_fingerprint, sources
from experiments.folder.normal_form import normal_form
from experiments.tasks.registry import TASKS, TaskEntry

VERSIONS = ("3.10.13", "3.11.7", "3.12.1", "3.13.0")
INTERPRETERS = [Path.home() / ".pyenv" / "versions" / version / "bin" / "python" for version in VERSIONS]
# what versions of Python parse differently, or name differently in their syntax trees
HARD = r'''
"""A docstring."""
from __future__ import annotations
import dataclasses as d
NAME, WIDE, BIG, REAL = "é\u2028🙂", b"\xff", 10**30, 1e-300
async def f(a, /, b: int = 1, *c, e=2, **g) -> dict[str, int]:
    "Another docstring."
    global NAME
    async with a as x, b as y:
        yield [z async for z in x if (q := z)] + [*c]
    match b:
        case {"k": [1, *_], **rest} | d.field(name=None): pass
        case -1 | "s": return
    return
class C(d.Field, metaclass=type):
    """A docstring alone."""
def h(x, y):
    text = "a" f"b{x!r:>{y}}c{{}}" "d" f"{x=}{x:%Y-%m}" f"{'nested'}" rf"\d{y}"
    try:
        assert x, f"{y}" ""
    except (KeyError, ValueError) as error:
        raise RuntimeError from error
    finally:
        del y
    return lambda *, z=...: not text if 1 < 2 <= 3 else ~x @ z[1:2, ::3]
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for room in fingerprint.ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_every_source_is_on_exactly_one_list():
    """A module that is on neither counts as computing until it is put on one."""
    assert sorted([*COMPUTES, *EXEMPT]) == sources()
    assert all(EXEMPT.values()), "an exemption has a reason"


def test_comments_docstrings_and_formatting_do_not_move_it(checkout):
    before = code_fingerprint("classification", checkout)
    assert before == code_fingerprint("classification")
    mixer = checkout / "atm" / "mixer.py"
    edit(mixer, '"""', '"""Another docstring. ')
    text = mixer.read_text()
    mixer.write_text("# a comment\n" + text.replace("\n    def ", "\n    # another comment\n\n    def ", 1))
    subprocess.run([sys.executable, "-m", "ruff", "format", "--line-length=60", "--isolated", mixer], check=True)
    assert mixer.read_text() != text
    variants = checkout / "atm" / "variants.yaml"
    variants.write_text("# a comment\n" + variants.read_text().replace("[2, 2, 2, 2]", "[2,2,  2,2]"))
    assert code_fingerprint("classification", checkout) == before


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("atm/mixer.py", "dim // 4)", "dim // 2)"),
        ("atm/variants.yaml", "depths: [2, 2, 2, 2]", "depths: [2, 2, 2, 3]"),
        ("atm/sampling/reference.py", "+ 1", "+ 2"),
        ("experiments/training/optimization.py", "lr=", "momentum="),
        ("experiments/data/order.py", "2**32", "2**31"),
        ("experiments/data/images.py", "0", "1"),
        ("experiments/tasks/classification.py", "min(5,", "min(6,"),
        ("experiments/tasks/network.py", "drop_path_rate", "drop_rate"),
    ],
)
def test_a_change_of_what_computes_moves_it(checkout, path, before, after):
    original = code_fingerprint("classification", checkout)
    edit(checkout / path, before, after)
    assert code_fingerprint("classification", checkout) != original


@pytest.mark.parametrize(
    "path",
    ["atm/sampling/native.cpp", "atm/sampling/eager.py", "atm/complexity.py", "experiments/training/progress.py",
     "experiments/schema.py", "experiments/recipes/imagenet.yaml", "experiments/tasks/token_labelling.py",
     "experiments/data/scenes.py"],
)  # fmt: skip
def test_what_does_not_compute_does_not_move_it(checkout, path):
    """Backends of the sampler, reports of progress, settings, other tasks and data sets."""
    before = code_fingerprint("classification", checkout)
    (checkout / path).write_text("changed = 1\n")
    assert code_fingerprint("classification", checkout) == before


def test_a_module_on_no_list_counts_and_other_tasks_do_not(checkout):
    before = code_fingerprint("classification", checkout)
    (checkout / "experiments" / "tasks" / "detection.py").write_text("import experiments.data.coco\n")
    (checkout / "experiments" / "data" / "coco.py").write_text("BOXES = 4\n")
    assert code_fingerprint("classification", checkout) == before
    assert "experiments/data/coco.py" in covered("experiments.tasks.detection", checkout)
    (checkout / "atm" / "pool.py").write_text("SIZE = 3\n")
    assert code_fingerprint("classification", checkout) != before


def test_a_task_of_another_package_is_covered_with_what_it_imports(tmp_path, monkeypatch):
    package = tmp_path / "boxing"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    task = package / "task.py"
    task.write_text("from experiments.data.scenes import Scenes\nRINGS = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TASKS, "boxing", TaskEntry("boxing.task:Boxing", "ap", "AP"))
    before = code_fingerprint("boxing")
    assert "experiments/data/scenes.py" in covered("boxing.task")
    assert "experiments/data/images.py" not in covered("boxing.task")
    task.write_text("# a comment\n" + task.read_text())
    assert code_fingerprint("boxing") == before
    task.write_text(task.read_text().replace("RINGS = 3", "RINGS = 4"))
    assert code_fingerprint("boxing") != before


def test_a_data_set_of_another_package_is_covered(tmp_path, monkeypatch):
    (tmp_path / "my_cells.py").write_text("SIZE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fingerprint, "plugin_module", lambda group, name: "my_cells" if name == "cells" else None)
    config = resolve("scenes")
    assert run_fingerprint(config) == code_fingerprint("token_labelling")
    config.data.dataset = "cells"
    assert run_fingerprint(config) == code_fingerprint("token_labelling", plugins=["my_cells"])
    assert run_fingerprint(config) != code_fingerprint("token_labelling")
    fingerprint._run_modules.cache_clear()


@pytest.mark.parametrize("interpreter", INTERPRETERS, ids=VERSIONS)
def test_every_version_of_python_gives_the_same(interpreter, tmp_path):
    if not interpreter.is_file():
        pytest.skip(f"{interpreter} is not installed")
    hard = tmp_path / "hard.py"
    hard.write_text(HARD, encoding="utf-8")
    paths = [hard, *(ROOT / path for path in sources() if path.endswith(".py"))]
    code = (
        "import sys, hashlib, pathlib; from experiments.folder.normal_form import normal_form\n"
        "for path in sys.argv[1:]: print(hashlib.sha256(normal_form(pathlib.Path(path)).encode()).hexdigest())"
    )
    done = subprocess.run([interpreter, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = [hashlib.sha256(normal_form(path).encode()).hexdigest() for path in paths]
    differing = [path.name for path, a, b in zip(paths, expected, done.stdout.split()) if a != b]
    assert differing == [] and len(done.stdout.split()) == len(paths)


def test_sources_that_differ_in_what_they_do_have_other_forms(tmp_path):
    pairs = [("x = 1", "x = 1.0"), ("x = 'é'", "x = 'e'"), ("f'{x}a'", "f'a{x}'"), ("x = None", "x = 'None'"),
             ("f(x, *y)", "f(*y, x)"), ("def f(): 'doc'; return 1", "def f(): return 2"), ("f'{x!r}'", "f'{x}'"),
             ("x: int = 1", "x = 1"), ("{**a}", "{a: a}"), ("a < b", "a > b"), ("a[1:]", "a[:1]")]  # fmt: skip
    for number, pair in enumerate(pairs):
        forms = []
        for name, text in zip("ab", pair):
            path = tmp_path / f"{number}{name}.py"
            path.write_text(text, encoding="utf-8")
            forms.append(normal_form(path))
        assert forms[0] != forms[1], pair


def test_compiled_sources_count_without_comments(tmp_path):
    texts = [
        'int a = 1; // one\nchar *b = "// text";',
        '/* a\n b */ int a = 1;\n\n  char *b = "// text";',
        'int a = 1; char *b = "";',
    ]
    forms = []
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.cpp"
        path.write_text(text)
        forms.append(normal_form(path).strip())
    assert forms[0] == forms[1] != forms[2]


def test_it_does_not_import_torch():
    code = "import sys; from experiments.folder.fingerprint import code_fingerprint; code_fingerprint('classification'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
