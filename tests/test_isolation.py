"""Tests see nothing of what the developer who starts them has set for runs of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from experiments import ROOT
from experiments.commands import RUNS_DIR
from experiments.config import users_site


def test_neither_site_file_nor_variables_of_a_user_are_seen():
    assert not [name for name in os.environ if name.startswith("ATM_")]
    assert not users_site().exists()


def test_the_same_where_the_user_has_both(tmp_path):
    site = tmp_path / "atm" / "site.yaml"
    site.parent.mkdir()
    site.write_text("no_such_key: 1\n")
    theirs = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path), RUNS_DIR: str(tmp_path), "ATM_CACHE_DIR": "/x"}
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"{__file__}::{FIRST}"]
    ended = subprocess.run(words, cwd=ROOT, env=os.environ | theirs, capture_output=True, text=True)
    assert ended.returncode == 0 and "1 passed" in ended.stdout, ended.stdout + ended.stderr


FIRST = test_neither_site_file_nor_variables_of_a_user_are_seen.__name__
