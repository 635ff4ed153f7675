"""The commit that a run records is that of its own checkout, or none."""

from __future__ import annotations

import subprocess

import pytest

from experiments.folder.provenance import checkout, git
from sweeps import snapshot
from tests.sweeps.test_code_copies import commit, commit_of


@pytest.fixture
def root(tmp_path):
    """A checkout as far as git is concerned."""
    for path in ("run.py", "atm/mixer.py", "experiments/config.py"):
        (tmp_path / "root" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / path).write_text("pass\n")
    commit(tmp_path / "root", "first")
    return tmp_path / "root"


def test_a_clean_checkout_and_an_edited_one(root):
    assert checkout(root) == {"commit": commit_of(root), "dirty": False}
    (root / "notes.txt").write_text("beside the code")
    assert checkout(root)["dirty"] is False
    (root / "atm" / "mixer.py").write_text("edited\n")
    assert checkout(root)["dirty"] is True


def test_what_the_users_settings_hide_is_seen(root):
    subprocess.run(["git", "config", "status.showUntrackedFiles", "no"], cwd=root, check=True)
    (root / "atm" / "new.py").write_text("pass\n")
    assert checkout(root)["dirty"] is True


def test_the_environment_names_no_other_repository(root, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.py").write_text("another\n")
    commit(other, "another")
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git/index",
    }.items():
        monkeypatch.setenv(name, str(value))
    own = git(root, "rev-parse", "HEAD").decode().strip()
    assert checkout(root) == {"commit": own, "dirty": False}
    monkeypatch.undo()
    assert own == commit_of(root) != commit_of(other)


def test_a_folder_in_another_repository_has_no_commit(root, tmp_path):
    inner = root / "vendor"
    inner.mkdir()
    (inner / "run.py").write_text("pass\n")
    assert checkout(inner) == {"commit": None, "dirty": None}
    (root / "run.py").unlink()
    assert checkout(root) == {"commit": None, "dirty": None}, "it holds no run.py"
    assert checkout(tmp_path / "nowhere") == {"commit": None, "dirty": None}


def test_a_commit_is_taken_from_this_checkout_alone(root, tmp_path):
    with pytest.raises(snapshot.ConfigError, match="git knows no such commit"):
        snapshot.take_at(tmp_path / "runs", "0123456", root)
