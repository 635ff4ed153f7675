"""Is this machine ready to run the suite? Each check says what it found and, where needed, what to do.

Nothing lasting is changed. This must work where the packages are not installed, which is what it is there to say:
the suite's other modules, and torch, are imported by the checks that need them.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atomic_file
from errors import ConfigError, DataError, SuiteError, unknown

if TYPE_CHECKING:
    from experiments.config import Config

ROOT = Path(__file__).resolve().parent.parent
OK, WARNING, PROBLEM, ABSENT = "ok", "warning", "problem", "absent"
SIGNS = {OK: ("✓", "green"), WARNING: ("!", "yellow"), PROBLEM: ("✗", "red"), ABSENT: ("–", "dim")}
GB = 10**9
# below the first number a warning, below the second a problem
FREE_BYTES = (10 * GB, 1 * GB)
FREE_INODES = (10_000, 1_000)
SLOW_SYNC_SECONDS = 1.0
LEAST_SHARED_MEMORY, LEAST_MEMORY, LEAST_OPEN_FILES = 1 * GB, 2 * GB, 1024
COUNT_SECONDS = 1.0  # for the images of one split
ANSWER_SECONDS = 10.0  # for a command that is asked something
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")  # what timm reads from class folders, in either case
IN_MEMORY = ("tmpfs", "ramfs")
OVER_NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "fuse.sshfs", "9p")


@dataclass(frozen=True)
class Finding:
    """One line of the answer. ``advice`` says what to do, and is empty where there is nothing to do."""

    name: str
    verdict: str
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        for part in ("found", "advice"):  # one line that can be printed, whatever a file was called
            text = " ".join(str(getattr(self, part)).split())
            object.__setattr__(self, part, text.encode(errors="backslashreplace").decode())


@dataclass(frozen=True)
class Asked:
    """What the checks are about beside the machine itself."""

    runs_dir: Callable[[], Path]
    experiment: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    site: Mapping[str, Any] = field(default_factory=dict)
    site_path: Path = ROOT / "site.yaml"
    site_refused: str = ""  # why site.yaml could not be read


def examine(
    words: list[str],
    runs_folder: Callable[[dict[str, Any], dict[str, Any]], Path],
    site_path: Path = ROOT / "site.yaml",
) -> list[Finding]:
    """Every check, in order. Raises ConfigError for words that no run would take; anything else is a finding.

    words: ``key=value`` words of the command line. runs_folder: where run folders are, by its settings and the site's.
    """
    try:
        asked = understand(words, runs_folder, site_path)
    except ImportError as error:  # the settings cannot be read, but what is missing can be said
        asked = Asked(lambda: runs_folder({}, {}), site_path=site_path, site_refused=_missing(error))
    named = [(check.__name__.replace("_", " "), partial(check, asked)) for check in CHECKS]
    return [finding for name, check in named for finding in guarded(name, check)]


def understand(
    words: list[str], runs_folder: Callable[[dict[str, Any], dict[str, Any]], Path], site_path: Path
) -> Asked:
    from experiments.config import FIELDS, parse_overrides, read_site, resolve

    given = parse_overrides(words)
    for key in given:
        if key not in (known := [*FIELDS, "model", "runs_dir"]):
            raise ConfigError(unknown("key", key, known))
    experiment = given.pop("experiment", "")
    where = {"runs_dir": given.pop("runs_dir", None)}
    if experiment is None:
        raise ConfigError("experiment=NAME: which one? `python run.py list` shows them")
    if experiment:
        resolve(str(experiment), given)  # what is wrong on the command line is refused; what is wrong here is found
    elif given:
        raise ConfigError(
            f"{next(iter(given))} is a setting of a run: add experiment=NAME to check what that run needs"
        )
    site, refused = {}, ""
    try:
        site = read_site(site_path)
    except (ConfigError, UnicodeDecodeError) as error:
        refused = str(error)
    return Asked(lambda: runs_folder(dict(where), dict(site)), str(experiment) or None, given, site, site_path, refused)


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a check finds; whatever it raises becomes a problem of that name."""
    try:
        yield from check()
    except SuiteError as error:
        yield Finding(name, PROBLEM, str(error), "correct what it names")
    except ImportError as error:
        yield Finding(name, PROBLEM, f"not checked: {_missing(error)}", how_to_install())
    except OSError as error:
        at = f"{error.filename}: " if error.filename else ""
        yield Finding(name, PROBLEM, f"{at}{error.strerror or error}", "correct its permissions or its path")
    except Exception as error:
        yield Finding(
            name, PROBLEM, f"not checked: {type(error).__name__}: {error}", "report this as a fault of doctor"
        )


# --- what is installed


def python(asked: Asked) -> Iterator[Finding]:
    running = sys.version.split()[0]
    found = f"{running}, {sys.executable}"
    try:
        from packaging.specifiers import SpecifierSet

        needed = _project()["requires-python"]
        new_enough = SpecifierSet(needed).contains(running, prereleases=True)
    except ImportError as error:
        yield Finding(
            "python", WARNING, f"{found}; not compared with pyproject.toml: {_missing(error)}", how_to_install()
        )
        return
    if new_enough:
        yield Finding("python", OK, found)
    else:
        yield Finding("python", PROBLEM, f"{found}; needed: {needed}", "make PYTHON=python3.12 demo sets up another")


def packages(asked: Asked) -> Iterator[Finding]:
    """What pyproject.toml asks for against what is installed."""
    try:
        project = _project()
    except ImportError as error:
        yield Finding("packages", WARNING, f"bounds not compared: {_missing(error)}", how_to_install())
        return
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["suite"]]
    lacking, count = _lacking(needed), len(needed)
    if lacking:
        yield Finding(
            "packages", PROBLEM, f"{len(lacking)} of {count} that the suite needs: {_some(lacking)}", how_to_install()
        )
    else:
        yield Finding("packages", OK, f"all {count} that the suite needs")
    if lacking := _lacking(extras["dev"]):
        found = f"{_some(lacking)}: needed by make test"
        yield Finding("development packages", WARNING, found, how_to_install())
    else:
        yield Finding("development packages", OK, f"all {len(extras['dev'])} that make test needs")


def locked_versions(asked: Asked) -> Iterator[Finding]:
    """Whether the versions are those the suite was tested with."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    same, other = 0, []
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if not line.strip() or line.startswith(("#", "-")):
            continue
        locked = Requirement(line)
        version = _version(locked.name)
        if version is None or (locked.marker and not locked.marker.evaluate()):
            continue
        # 2.6.0+cpu is another build of the same version
        if locked.specifier.contains(Version(version).public, prereleases=True):
            same += 1
        else:
            other.append(f"{locked.name} {version} (locked {str(locked.specifier).lstrip('=')})")
    if other:
        found = f"{len(other)} of {same + len(other)} installed packages differ: {_some(other)}"
        yield Finding("locked versions", WARNING, found, "pip install -r requirements.lock, to run what was tested")
    else:
        yield Finding("locked versions", OK, f"{same} installed packages as in requirements.lock")


def code(asked: Asked) -> Iterator[Finding]:
    from experiments.provenance import checkout

    if not shutil.which("git"):
        yield Finding("code", WARNING, "git is not installed", "install git: runs cannot say which commit they are of")
        return
    state = checkout()
    if state["commit"] is None:
        yield Finding(
            "code",
            WARNING,
            f"git knows no commit of {ROOT}",
            "`git status` there says why: runs cannot say which commit they are of",
        )
    elif state["dirty"]:
        found = f"commit {state['commit'][:12]} with uncommitted changes in atm/ or experiments/"
        yield Finding("code", WARNING, found, "commit before runs that count: each one notes that it was dirty")
    else:
        yield Finding("code", OK, f"commit {state['commit'][:12]}, atm/ and experiments/ unchanged")


def how_to_install() -> str:
    """The shortest way from this interpreter to one that has the packages."""
    own = ROOT / ".venv" / "bin" / "python"
    if own.exists() and not (Path(sys.prefix).exists() and own.parent.parent.samefile(sys.prefix)):
        return "run it with .venv/bin/python, which has its own packages, or pip install -r requirements.lock"
    return "pip install -r requirements.lock, or let make test set up .venv"


def _project() -> dict[str, Any]:
    """The [project] table of pyproject.toml. Raises ImportError where this Python reads no TOML."""
    try:
        reader = importlib.import_module("tomllib")  # from Python 3.11 on; tomli is the same for those before
    except ImportError:
        reader = importlib.import_module("tomli")
    project: dict[str, Any] = reader.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _lacking(requirements: Iterable[str]) -> list[str]:
    """The requirements that are not met, each with what is there; only their presence where packaging is missing."""
    lacking = []
    for requirement in requirements:
        name = re.split(r"[^\w.-]", requirement)[0]
        if (version := _version(name)) is None:
            lacking.append(f"{name} missing")
            continue
        try:
            from packaging.requirements import Requirement
        except ImportError:
            continue
        if not (bounds := Requirement(requirement).specifier).contains(version, prereleases=True):
            lacking.append(f"{name} {version} (needed {bounds})")
    return lacking


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _missing(error: ImportError) -> str:
    return f"{error.name} is not installed" if isinstance(error, ModuleNotFoundError) else str(error)


# --- settings and data


def site(asked: Asked) -> Iterator[Finding]:
    from experiments.config import merge, read_yaml, site_settings

    correct = "correct site.yaml; site.example.yaml shows every entry"
    if asked.site_refused:
        yield Finding("site", PROBLEM, asked.site_refused, correct)
    elif not os.path.lexists(asked.site_path):
        yield Finding("site", ABSENT, "no site.yaml", "copy site.example.yaml to site.yaml to state data roots once")
    elif not asked.site_path.is_file():
        yield Finding("site", PROBLEM, f"{asked.site_path} is not a file", "replace it by a copy of site.example.yaml")
    else:
        try:
            entries = read_yaml(ROOT / "site.example.yaml")  # it shows every entry that there can be
            for entry in asked.site:
                if entry not in entries:
                    raise ConfigError(f"site.yaml: {unknown('entry', entry, entries)}")
            merge(site_settings(asked.site, dataset=""))  # each data set is a finding of its own
        except ConfigError as error:
            yield Finding("site", PROBLEM, str(error), correct)
        else:
            yield Finding("site", OK, f"{asked.site_path} sets {', '.join(asked.site) or 'nothing'}")


def data(asked: Asked) -> Iterator[Finding]:
    """The data sets of site.yaml, and those of recipes that are nowhere."""
    from experiments.config import merge, read_recipe, recipe_names, resolve
    from experiments.data.layout import needs_root

    recipes: dict[str, list[str]] = {}
    for name in recipe_names():
        config = merge(read_recipe(name), {"experiment": name})
        if needs_root(config):
            recipes.setdefault(config.data.dataset, []).append(name)
    configured = asked.site.get("data") or {}
    if not isinstance(configured, Mapping):
        return  # the check of site.yaml says so
    of_experiment = resolve(asked.experiment, asked.overrides).data.dataset if asked.experiment else None
    for dataset in sorted({*recipes, *configured} - {of_experiment}, key=str):
        name, its_recipes = f"data {dataset}", recipes.get(dataset, [])
        if configured.get(dataset):
            yield from guarded(name, partial(_data_set, name, dataset, its_recipes, configured))
        else:
            advice = f"write its root under data.{dataset} in site.yaml, or data.root=PATH on the command line"
            yield Finding(name, ABSENT, f"nowhere; experiment={' and '.join(its_recipes)} would need it", advice)


def _data_set(name: str, dataset: str, recipes: list[str], configured: Mapping[str, Any]) -> Iterator[Finding]:
    """One data set of site.yaml, as the run of its first recipe would find it."""
    from experiments.config import merge, read_recipe, site_settings

    settings = {**read_recipe(recipes[0]), "experiment": recipes[0]} if recipes else {"data.dataset": dataset}
    for finding in _images(name, merge(settings, site_settings({"data": configured}, dataset))):
        if recipes or finding.verdict != OK:
            yield finding
        else:
            found = f"{finding.found}; no recipe is of {dataset}, only data.dataset={dataset} uses it"
            yield replace(finding, verdict=WARNING, found=found, advice="correct its name in site.yaml if one is meant")


def experiment(asked: Asked) -> Iterator[Finding]:
    """The run that was asked about: its settings and its data."""
    if asked.experiment is None:
        return
    from experiments.config import resolve
    from experiments.data.layout import needs_root
    from experiments.identity import origin

    config = resolve(asked.experiment, asked.overrides, site=asked.site)
    origin(config.init)  # refuses a file that is not there
    if needs_root(config):
        yield from _images("experiment", config)
    else:
        yield Finding("experiment", OK, f"{asked.experiment} needs no images")


def _images(name: str, config: Config) -> Iterator[Finding]:
    """The images of a config: where they are, how many classes and images."""
    from experiments.data.layout import check_root, split_folder

    data = config.data
    try:
        check_root(config)
    except DataError as error:
        yield Finding(name, PROBLEM, str(error), "docs/runs.md, Data, says how a data root is laid out and stated")
        return
    package = {"wds": "webdataset", "hfds": "datasets", "hfids": "datasets"}.get(data.reader.partition("/")[0].lower())
    if package and _version(package) is None:
        yield Finding(name, PROBLEM, f"reader {data.reader} needs the package {package}", f"pip install {package}")
        return
    if data.reader or data.root is None or not Path(data.root).is_dir():
        found = f"{data.root or data.reader}: {data.num_classes} classes; its images are seen when a run opens it"
        yield Finding(name, OK, found)
        return
    counts = []
    for split in (data.train_split, data.eval_split):
        images, empty, whole = _count(split_folder(Path(data.root), split))
        if empty:
            found = f"{data.root}: {len(empty)} classes of {split} hold no images, e.g. {', '.join(empty[:3])}"
            yield Finding(name, PROBLEM, found, f"put {', '.join(IMAGE_SUFFIXES)} files there, or remove these classes")
            return
        counts.append(f"{'' if whole else 'more than '}{images:,} {split}")
    yield Finding(name, OK, f"{data.root}: {data.num_classes} classes, {' and '.join(counts)} images")


def _count(split: Path) -> tuple[int, list[str], bool]:
    """Images below the class folders of a split, classes without any, and whether the time was enough to see all."""

    def refuse(error: OSError) -> None:
        raise error  # os.walk would pass over a folder that cannot be read

    deadline = time.monotonic() + COUNT_SECONDS
    total = 0
    empty: list[str] = []
    for folder in sorted(entry for entry in split.iterdir() if entry.is_dir()):
        here = 0
        for _, _, names in os.walk(folder, onerror=refuse, followlinks=True):
            here += sum(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
            if time.monotonic() > deadline:
                return total + here, empty, False
        total += here
        if not here:
            empty.append(folder.name)
    return total, empty, True


# --- where run folders are


def run_folder(asked: Asked) -> Iterator[Finding]:
    elsewhere = "set runs_dir in site.yaml, or runs_dir=PATH, to a folder of yours"
    try:
        wanted = asked.runs_dir()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, the home of nobody, a null character
        yield Finding("run folder", PROBLEM, f"runs_dir names no place: {error}", elsewhere)
        return
    folder = next(path for path in (wanted, *wanted.parents) if os.path.lexists(path))
    if not folder.is_dir():
        yield Finding(
            "run folder", PROBLEM, f"{folder} is a file" if folder.is_file() else f"{folder} is no folder", elsewhere
        )
        return
    place = str(wanted) if folder == wanted else f"{wanted}, to be made in {folder}"
    owner = _owner(folder)
    try:
        seconds = _probe(folder)
    except (OSError, SuiteError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        yield Finding(
            "run folder", PROBLEM, f"cannot write in {folder} (owner {owner}, you are {_user()}): {why}", elsewhere
        )
    else:
        yield Finding("run folder", OK, f"{place}, owner {owner}, takes files and locks")
        found = f"4 kB are safe after {1000 * seconds:.0f} ms"
        slow = seconds > SLOW_SYNC_SECONDS
        advice = "a local or less busy disk as runs_dir: every epoch waits for it several times" if slow else ""
        yield Finding("disk speed", WARNING if slow else OK, found, advice)
    yield _space(folder)
    yield _file_system(folder)


def _probe(folder: Path) -> float:
    """Seconds in which a small file is safely on the disk of ``folder``; leaves nothing there.

    Raises what keeps a run folder from being written there: it needs folders, synced files, renames and locks.
    """
    import fcntl

    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as name:
        file = Path(name) / "probe"
        started = time.monotonic()
        atomic_file.write(file, bytes(4096))
        seconds = time.monotonic() - started
        try:
            with file.open("r+b") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SuiteError(
                f"its file system gives no locks ({error.strerror}); Lustre: mount it with flock"
            ) from None
        try:
            file.open("x").close()
        except FileExistsError:
            return seconds
        raise SuiteError("its file system lets two processes create the same file")


def _space(folder: Path) -> Finding:
    disk = os.statvfs(folder)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    found = f"{_size(free)} of {_size(total)} free"
    verdict = _graded(free, FREE_BYTES)
    if disk.f_files:  # some file systems make inodes as they need them
        found += f", {disk.f_favail:,} inodes"
        verdict = max(verdict, _graded(disk.f_favail, FREE_INODES), key=[OK, WARNING, PROBLEM].index)
    advice = "" if verdict == OK else "make room, or set runs_dir to another disk: a run that cannot write stops"
    return Finding("disk space", verdict, found, advice)


def _file_system(folder: Path) -> Finding:
    try:
        kind, options = _mount(folder)
    except OSError:
        return Finding("file system", ABSENT, "not known here")
    found = f"{kind}, over the network" if kind in OVER_NETWORK else kind
    if "ro" in options:
        return Finding("file system", PROBLEM, f"{found}, mounted read-only", "set runs_dir to one that can be written")
    if kind in IN_MEMORY:
        return Finding(
            "file system", WARNING, f"{found}, kept in memory", "set runs_dir to a disk: a reboot empties this"
        )
    return Finding("file system", OK, found)


def _mount(folder: Path) -> tuple[str, list[str]]:
    """Type and options of the file system that holds ``folder``."""
    real = folder.resolve()
    best, found = -1, ("unknown", [""])
    for line in Path("/proc/mounts").read_text(errors="surrogateescape").splitlines():
        _, point, kind, options, *_ = line.split(" ")
        # spaces and the like are written as octal escapes
        at = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point))
        if (at == real or at in real.parents) and len(at.parts) >= best:  # the last of several at one place is on top
            best, found = len(at.parts), (kind, options.split(","))
    return found


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:  # containers often have no name for a user
        return f"user {folder.stat().st_uid}"


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


# --- processor, memory, devices


def processor(asked: Asked) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    there = os.cpu_count() or cores
    yield Finding("cores", OK, f"{cores} usable" if cores == there else f"{cores} of {there} usable by this process")
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(memory[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    yield _at_least(
        "memory",
        available,
        LEAST_MEMORY,
        f"{_size(available)} of {_size(total)} available",
        "end other programs, or take a smaller train.batch_size and fewer data.workers",
    )
    if Path("/dev/shm").is_dir():  # noqa: S108 (where loader processes put their batches)
        shared = os.statvfs("/dev/shm")  # noqa: S108
        free = shared.f_bavail * shared.f_frsize
        yield _at_least(
            "shared memory",
            free,
            LEAST_SHARED_MEMORY,
            f"{_size(free)} of {_size(shared.f_blocks * shared.f_frsize)} free in /dev/shm",
            "give the container more, e.g. docker run --shm-size=2g, or set data.workers=0",
        )
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = limit == resource.RLIM_INFINITY
    yield _at_least(
        "open files",
        LEAST_OPEN_FILES if unlimited else limit,
        LEAST_OPEN_FILES,
        "no limit" if unlimited else f"{limit:,} at a time",
        f"ulimit -n {4 * LEAST_OPEN_FILES} before starting runs: loader processes share batches as files",
    )


def gpu(asked: Asked) -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken installation raises OSError and others as well
        why = next(iter(str(error).splitlines()), type(error).__name__)
        advice = how_to_install() if isinstance(error, ModuleNotFoundError) else "reinstall torch in this environment"
        yield Finding("gpu", PROBLEM, f"torch cannot be imported: {why}", advice)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    said = [next(iter(str(warning.message).splitlines()), "") for warning in caught]
    driver = (
        _ask("nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader")
        if shutil.which("nvidia-smi")
        else None
    )
    build = f"torch {torch.__version__} ({f'CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'})"
    if not seen:
        yield _no_gpu(build, bool(torch.version.cuda), driver, said)
        return
    version = driver.said[0].partition(",")[0] if driver and driver.worked and driver.said else "unknown"
    found = f"{seen} {'device' if seen == 1 else 'devices'}; {build}, driver {version}"
    if said:
        yield Finding(
            "gpu", WARNING, f"{found}; torch warns: {said[0]}", "update the driver, or take another torch build"
        )
    else:
        yield Finding("gpu", OK, found)
    for index in range(seen):
        yield _device(index)


def _no_gpu(build: str, with_cuda: bool, driver: Answer | None, said: list[str]) -> Finding:
    """Why torch sees no GPU: there is none, or there is one and something is in its way."""
    on_cpu = "runs go on the CPU"
    if driver is None:
        return Finding("gpu", ABSENT, f"none; {build}: {on_cpu}", "nothing, unless this machine has one")
    if not driver.worked or not driver.said:
        found = f"none; nvidia-smi is here but shows none ({driver.text}): {on_cpu}"
        return Finding("gpu", WARNING, found, "as it should be on a login node; else see to the driver")
    found = f"nvidia-smi shows {driver.said[0]}, {build} sees none"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not with_cuda:
        return Finding("gpu", PROBLEM, found, "install a torch build with CUDA (pytorch.org, Get started)")
    if hidden is not None and not said:
        return Finding(
            "gpu", PROBLEM, f"{found}; CUDA_VISIBLE_DEVICES={hidden!r} hides it", "unset CUDA_VISIBLE_DEVICES"
        )
    because = f"; torch warns: {said[0]}" if said else ""
    advice = "update the driver, or take a torch build for an older CUDA; in a container, start it with its GPUs"
    return Finding("gpu", PROBLEM, f"{found}{because}", advice)


def _device(index: int) -> Finding:
    """One GPU, after it has computed something."""
    import torch

    try:
        with torch.cuda.device(index):
            properties = torch.cuda.get_device_properties(index)
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            torch.ones(8, device="cuda").sum().item()
    except RuntimeError as error:
        advice = "nvidia-smi says whether another process has it; else take a torch build made for this GPU"
        return Finding(f"gpu {index}", PROBLEM, f"cannot compute: {next(iter(str(error).splitlines()), '')}", advice)
    found = (
        f"{properties.name}, {_size(properties.total_memory)}, compute capability {properties.major}.{properties.minor}"
    )
    if bfloat16:
        return Finding(f"gpu {index}", OK, f"{found}, bfloat16")
    return Finding(f"gpu {index}", WARNING, f"{found}, no bfloat16", "set train.precision=float16, or float32")


def distributed(asked: Asked) -> Iterator[Finding]:
    """What a run on several devices would need."""
    try:
        import torch
        import torch.distributed
    except Exception:
        yield Finding("distributed", ABSENT, "not known: torch cannot be imported")
        return
    if not torch.distributed.is_available():
        yield Finding("distributed", ABSENT, "this torch has no torch.distributed", "one device per run needs none")
        return
    gloo, nccl = torch.distributed.is_gloo_available(), torch.distributed.is_nccl_available()
    there = " and ".join(name for name, here in (("gloo", gloo), ("nccl", nccl)) if here) or "no backend"
    if not nccl and torch.cuda.device_count() > 1:
        yield Finding("distributed", WARNING, f"{there}, without nccl", "install a torch build with NCCL to join GPUs")
    else:
        yield Finding("distributed", OK, there)


# --- other programs


@dataclass(frozen=True)
class Answer:
    """What a command said: its lines where it worked, else its complaint."""

    worked: bool
    said: list[str]

    @property
    def text(self) -> str:
        return self.said[0] if self.said else "it says nothing"


def slurm(asked: Asked) -> Iterator[Finding]:
    if not shutil.which("sbatch"):
        yield Finding("slurm", ABSENT, "no sbatch: runs start on this machine", "nothing, unless this is a cluster")
        return
    questions = {
        "version": ("sbatch", "--version"),
        "config": ("scontrol", "show", "config"),
        "partitions": ("scontrol", "show", "partition", "--oneliner"),
        "queue": ("squeue", "--noheader", f"--user={os.geteuid()}", "--format=%i"),
        "accounts": ("sacct", "--noheader", "--allocations", "--format=JobID"),
    }
    with ThreadPoolExecutor(len(questions)) as pool:  # a controller that is away takes its time over each
        answers = dict(zip(questions, pool.map(lambda question: _ask(*question), questions.values())))
    for name in ("version", "config", "partitions", "queue"):
        if not answers[name].worked:
            found = f"{questions[name][0]} does not answer: {answers[name].text}"
            advice = "ask whoever runs the cluster, or go to one of its login nodes; runs on this machine need none"
            yield Finding("slurm", PROBLEM, found, advice)
            return
    settings = {key.strip(): value.strip() for key, _, value in (s.partition("=") for s in answers["config"].said)}
    partitions = re.findall(r"^PartitionName=(\S+)", "\n".join(answers["partitions"].said), re.MULTILINE)
    found = (
        f"{answers['version'].text}; partitions {_some(partitions) or 'none'}; "
        f"MaxArraySize {settings.get('MaxArraySize', 'unknown')}; jobs of yours: {len(answers['queue'].said)}"
    )
    if partitions:
        yield Finding("slurm", OK, found)
    else:
        yield Finding("slurm", WARNING, found, "ask whoever runs the cluster which partition is yours")
    if answers["accounts"].worked:
        yield Finding("slurm accounting", OK, "sacct answers")
    else:
        found = f"sacct does not answer: {answers['accounts'].text}"
        advice = "nothing: what became of a job is then read from its run folder alone"
        yield Finding("slurm accounting", WARNING, found, advice)


def latex(asked: Asked) -> Iterator[Finding]:
    for program in ("pdflatex", "tectonic"):
        if path := shutil.which(program):
            yield Finding("latex", OK, path)
            return
    advice = "apt-get install texlive-latex-extra, only to compile a report's table_alone.tex here"
    yield Finding("latex", ABSENT, "neither pdflatex nor tectonic", advice)


def _ask(*command: str) -> Answer:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Answer(False, [f"nothing within {ANSWER_SECONDS:g} s"])
    except OSError as error:
        return Answer(False, [error.strerror or str(error)])
    worked = done.returncode == 0
    text = done.stdout if worked else done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
    return Answer(worked, [line for line in text.splitlines() if line.strip()])


# --- said


def summary(findings: Iterable[Finding]) -> str:
    verdicts = [finding.verdict for finding in findings]
    plural = {WARNING: "warnings", PROBLEM: "problems"}
    counts = {verdict: verdicts.count(verdict) for verdict in SIGNS}
    return ", ".join(f"{n} {plural.get(v, v) if n != 1 else v}" for v, n in counts.items() if n)


def lines(findings: Iterable[Finding]) -> list[str]:
    """A line for each finding, for logs and for ``grep``."""
    return [
        f"{f.verdict:<8} {f.name:<20} {f.found}{f'; to do: {f.advice}' if f.advice else ''}".rstrip() for f in findings
    ]


def as_dict(findings: list[Finding]) -> dict[str, Any]:
    return {"checks": [asdict(finding) for finding in findings], "ok": passed(findings)}


def passed(findings: Iterable[Finding]) -> bool:
    return all(finding.verdict != PROBLEM for finding in findings)


def show(findings: list[Finding]) -> None:
    """Prints them: on a terminal a sign, a name and the advice below what was found, elsewhere a line each."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no ✓ shows a ?
    try:
        if not sys.stdout.isatty():
            raise ImportError
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:  # nothing that is missing keeps the doctor from saying so
        print("\n".join([*lines(findings), summary(findings)]))
        return
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        sign, style = SIGNS[finding.verdict]
        told = Text(finding.found)
        if finding.advice:
            told.append(f"\n→ {finding.advice}", style=style)
        table.add_row(Text(sign, style=style), Text(finding.name), told)
    console = Console()
    console.print(table)
    console.print(summary(findings), highlight=False)


def _at_least(name: str, value: int, least: int, found: str, advice: str) -> Finding:
    return Finding(name, OK, found) if value >= least else Finding(name, WARNING, found, advice)


def _graded(value: int, bounds: tuple[int, int]) -> str:
    warning, problem = bounds
    return PROBLEM if value < problem else WARNING if value < warning else OK


def _size(count: int) -> str:
    return f"{count / GB:,.1f} GB"


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


CHECKS: tuple[Callable[[Asked], Iterable[Finding]], ...] = (
    python,
    packages,
    locked_versions,
    code,
    site,
    data,
    experiment,
    run_folder,
    processor,
    gpu,
    distributed,
    slurm,
    latex,
)
