"""A backend is chosen by name or by device, and the native backend is compiled once where that is possible."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import atm.sampling
from atm.sampling import backend_for, backends, describe, native, recompose, reference, use

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Empty caches in memory and on the disk. Returns the folder for compiled kernels, which does not exist yet."""

    def clear_caches() -> None:
        for function in (native.load, backends.unavailable, backends._warn):
            function.cache_clear()

    monkeypatch.setenv("ATM_CACHE_DIR", str(tmp_path / "cache"))
    clear_caches()
    use("auto")
    yield tmp_path / "cache"
    monkeypatch.undo()
    clear_caches()
    use("auto")


@pytest.fixture
def small(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Replaces the kernels' source by one that compiles quickly."""
    source = tmp_path / "small.cpp"
    source.write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setattr(native, "SOURCE", source)
    monkeypatch.delenv("CXX", raising=False)
    return source


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)
    return path


def libraries(folder: Path) -> list[Path]:
    """The compiled libraries in a folder, which must contain nothing else."""
    paths = sorted(folder.iterdir())
    assert all(path.name.startswith("sampler-") and path.suffix == ".so" for path in paths)
    return paths


def test_refuses_an_unknown_name(fresh: Path) -> None:
    with pytest.raises(
        ValueError, match=r"unknown sampling backend 'numpy' \(valid: auto, reference, eager, native, triton\)"
    ):
        use("numpy")
    assert backends.chosen() == "auto"


def test_refuses_a_backend_that_cannot_run_here(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    with pytest.raises(
        ValueError, match=r"'native' cannot run here: no C\+\+ compiler \(/nonexistent/g\+\+\) was found"
    ):
        use("native")
    assert backends.chosen() == "auto"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_refuses_triton_without_a_gpu(fresh: Path) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter runs anywhere")
    with pytest.raises(ValueError, match=r"'triton' cannot run here: (there is no CUDA device|no Triton)"):
        use("triton")


def test_falls_back_to_eager_without_a_compiler_and_warns_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    x, offsets = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 4, 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [recompose(x, offsets, False, 1) for _ in range(3)]
        assert backend_for("cpu") == "eager"
        assert describe("cpu") == "eager (no C++ compiler (/nonexistent/g++) was found)"
    assert [(w.category, str(w.message)) for w in caught] == [
        (
            RuntimeWarning,
            "sampling falls back to the slower backend 'eager' on cpu: no C++ compiler (/nonexistent/g++) was found",
        )
    ]
    for a, b in zip(results[-1], reference.recompose(x, offsets, False, 1)):
        torch.testing.assert_close(a, b)


def test_finds_no_compiler_on_an_empty_path(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert native.unavailable() == "no C++ compiler (g++, clang++) was found"


@pytest.mark.parametrize("name", ["reference", "eager"])
def test_a_chosen_backend_is_described_by_its_name_alone(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    use(name)
    assert describe("cpu") == backend_for("cpu") == name


def test_eager_samples_on_devices_without_kernels(fresh: Path) -> None:
    assert describe("mps") == backend_for("mps") == "eager"


@needs_compiler
def test_a_compiled_backend_is_described_with_its_compiler(small: Path) -> None:
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    assert describe("cpu") == f"native ({version})"


def test_a_compiler_that_fails_is_quoted(small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fails = script(
        tmp_path / "fails", '[ "$1" = --version ] && echo 1.0 && exit', "echo hm >&2", "echo error: boom >&2", "exit 1"
    )
    monkeypatch.setenv("CXX", str(fails))
    assert native.unavailable() == f"{fails} failed: error: boom"
    with pytest.raises(native.Unavailable, match="error: boom"):
        native.load()


@pytest.mark.parametrize("lines", [["exit 0"], ["echo text > ${@: -1}"], ["kill -9 $$"]])
def test_a_compiler_without_output_makes_native_unavailable(
    small: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str]
) -> None:
    monkeypatch.setenv("CXX", str(script(tmp_path / "odd", *lines)))
    assert native.unavailable() is not None
    assert not fresh.exists() or libraries(fresh) == []


def test_a_compiler_that_is_not_executable_makes_native_unavailable(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    assert "could not be made or loaded" in native.unavailable()


def test_a_compiler_that_hangs_makes_native_unavailable(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", str(script(tmp_path / "hangs", "exec sleep 30")))
    monkeypatch.setattr(native, "TIMEOUT_S", 0.2)
    started = time.monotonic()
    assert "took longer than 0 s" in native.unavailable()
    assert time.monotonic() - started < 10


@needs_compiler
def test_the_compiler_may_have_arguments(
    small: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launcher = script(tmp_path / "my cache", f'echo "$1" >> {tmp_path}/calls', 'exec "$@"')
    monkeypatch.setenv("CXX", f"'{launcher}' g++")
    assert native.unavailable() is None
    assert (tmp_path / "calls").read_text().split() == ["g++", "g++"]
    assert len(libraries(fresh)) == 1


def test_an_unfinished_quote_is_reported(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "'g++")
    assert "is not a command" in native.unavailable()


@needs_compiler
def test_a_source_is_compiled_once(small: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native.load()
    (first,) = libraries(fresh)
    written = first.stat().st_mtime_ns
    native.load.cache_clear()
    native.load()
    assert first.stat().st_mtime_ns == written
    small.write_text(small.read_text() + "int other;\n")
    native.load.cache_clear()
    native.load()
    assert len(libraries(fresh)) == 2
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-DOTHER"))
    native.load.cache_clear()
    native.load()
    assert len(libraries(fresh)) == 3


@needs_compiler
@pytest.mark.parametrize("shared", ["cache", "."], ids=["the folder itself", "the one above it"])
def test_nothing_is_compiled_or_kept_in_a_folder_that_others_may_write_to(
    small: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: str
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    cache = private / "cache"
    cache.mkdir()
    (private / shared).chmod(0o775)
    monkeypatch.setenv("ATM_CACHE_DIR", str(cache))
    built: list[str] = []
    run = native._run
    monkeypatch.setattr(native, "_run", lambda command: built.append(command[-1]) or run(command))
    assert "cannot keep it" in native.load().built_with
    (place,) = [path for path in built if path.endswith(".so")]
    assert not Path(place).is_relative_to(private)
    assert list(cache.iterdir()) == []
    (private / shared).chmod(0o700)
    native.load.cache_clear()
    assert "cannot keep it" not in native.load().built_with
    (kept,) = libraries(cache)
    (private / shared).chmod(0o777)
    assert native._cached(kept) is None, "a kept library there may be another's"


def test_where_every_folder_is_shared_nothing_is_compiled(
    small: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o777)  # not sticky: anybody may exchange what is in it
    monkeypatch.setattr(native.tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("ATM_CACHE_DIR", str(temporary / "cache"))
    assert f"others may write to {temporary}" in native.unavailable()


@needs_compiler
def test_what_a_killed_compilation_left_is_removed(small: Path, fresh: Path) -> None:
    old, new = fresh / f"{native.WORKSHOP}old", fresh / f"{native.WORKSHOP}new"
    for folder in (old, new):
        folder.mkdir(parents=True, mode=0o700)
    fresh.chmod(0o700)
    os.utime(old, (0, 0))
    native.load()
    assert not old.exists() and new.exists(), "another process may be compiling in it"


@needs_compiler
@pytest.mark.parametrize("damage", ["empty", "half", "last byte", "first bytes", "a folder"])
def test_a_damaged_library_is_compiled_again(small: Path, fresh: Path, damage: str) -> None:
    native.load()
    (path,) = libraries(fresh)
    whole = path.read_bytes()
    damaged = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "last byte": whole[:-1],
        "first bytes": b"\0" * 64 + whole[64:],
    }
    path.unlink()  # overwriting would change the library that this process has loaded
    if damage == "a folder":
        path.mkdir()
    else:
        path.write_bytes(damaged[damage])
        assert native._cached(path) is None
    native.load.cache_clear()
    assert native.unavailable() is None
    assert libraries(fresh) == [path]
    assert damage == "a folder" or native._cached(path) is not None


@needs_compiler
@pytest.mark.parametrize("obstacle", ["a file in its place", "read-only", "no home"])
def test_compiles_for_one_process_where_the_folder_is_not_writable(
    small: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, obstacle: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    if obstacle == "a file in its place":
        fresh.write_text("")
    elif obstacle == "read-only":
        fresh.mkdir(mode=0o500)
        if os.access(fresh, os.W_OK):
            monkeypatch.setenv("ATM_CACHE_DIR", "/proc/kernels")  # root may write to any other folder
    else:
        monkeypatch.delenv("ATM_CACHE_DIR")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
        assert native.cache_folder() is None
    assert native.unavailable() is None
    assert list(temporary.iterdir()) == []


ROOT = Path(atm.sampling.__file__).parents[2]
# Compiles the real kernels without optimisation, which would take most of the time.
SAMPLE = """
import torch
from atm.sampling import native, recompose, reference, use
native.FLAGS = tuple("-O0" if flag.startswith("-O") else flag for flag in native.FLAGS)
use("native")
x, offsets = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 4, 6)
for ours, expected in zip(recompose(x, offsets, False, 1), reference.recompose(x, offsets, False, 1)):
    torch.testing.assert_close(ours, expected)
print("sampled")
"""


@pytest.mark.slow
@needs_compiler
def test_two_processes_may_compile_at_once(tmp_path: Path) -> None:
    environment = os.environ | {"ATM_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment.pop("CXX", None)
    command = [sys.executable, "-c", SAMPLE]
    both = [
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=280)
        assert (process.returncode, out) == (0, "sampled\n"), err
    assert len(libraries(tmp_path / "cache")) == 1


def sample_in_a_worker(results: "multiprocessing.Queue[float]") -> None:
    torch.set_num_threads(1)  # as a DataLoader's workers do
    x, offsets = torch.ones(4, 8, 8, 32, requires_grad=True), torch.zeros(4, 8, 8, 64)
    tokens, _ = recompose(x, offsets, False, 1)
    tokens.sum().backward()
    results.put(float(tokens.detach().mean() + x.grad.mean()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("backend", ["eager", "native"])
def test_a_forked_worker_samples_after_its_parent(backend: str) -> None:
    if reason := backends.unavailable(backend, "cpu"):
        pytest.skip(reason)
    context, threads = multiprocessing.get_context("fork"), torch.get_num_threads()
    results = context.Queue()
    use(backend)
    try:
        torch.set_num_threads(2)  # the parent has a pool of threads, which its children do not inherit
        recompose(torch.ones(4, 8, 8, 32), torch.zeros(4, 8, 8, 64), False, 1)
        worker = context.Process(target=sample_in_a_worker, args=(results,), daemon=True)
        worker.start()
        try:
            assert results.get(timeout=60) == 4.0
            worker.join(timeout=60)
            assert worker.exitcode == 0
        finally:
            worker.kill()
    finally:
        use("auto")
        torch.set_num_threads(threads)
