"""A folder of checkpoints that cannot be listed is an error: an empty list would start the run over."""

from __future__ import annotations

import errno
import os

import pytest

from errors import RunFolderError
from experiments.folder import checkpoint


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_checkpoints_that_cannot_be_listed_are_an_error_and_not_an_empty_folder(tmp_path, monkeypatch, code):
    def refuse(path="."):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)  # what glob uses
    with pytest.raises(RunFolderError, match=tmp_path.name):
        checkpoint.newest_valid(tmp_path)


def test_a_run_without_a_folder_of_checkpoints_has_none(tmp_path):
    assert checkpoint.newest_valid(tmp_path / "checkpoints").path is None
