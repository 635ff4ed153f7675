"""Every part of a site.yaml that docs/slurm.md shows is read by the program, and stands in the batch scripts."""

from __future__ import annotations

import json
import re
import shlex

import pytest

import run as command_line
from experiments.config import ROOT, read_site
from experiments.schema import Data
from experiments.setting import read_time

BLOCKS = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "slurm.md").read_text(), re.MULTILINE | re.DOTALL)


def expected(site):
    """Lines of the batch script that the settings of a site must make."""
    slurm, machine = site.get("slurm", {}), site.get("machine", {})
    workers = site.get("data", {}).get("imagenet", {}).get("workers", Data.workers)
    lines = {f"#SBATCH --cpus-per-task={1 + workers}", f"#SBATCH --ntasks-per-node={machine.get('devices', 1)}"}
    for key, value in slurm.items():
        match key:
            case "setup":
                lines |= set(value)
            case "options":
                lines |= {f"#SBATCH {option}" for option in value}
            case "time_minutes":
                lines.add(f"#SBATCH --time={read_time(value, 'minutes'):.0f}")
            case "mem_gb":
                lines.add(f"#SBATCH --mem={1024 * value}M")
            case "signal_seconds":
                lines.add(f"#SBATCH --signal=USR2@{value}")
            case "partition" | "account" | "qos" | "constraint":
                lines.add(f"#SBATCH --{key}={shlex.quote(value)}")
    return lines


@pytest.mark.parametrize("block", BLOCKS)
def test_a_site_of_the_docs_makes_the_batch_script_that_it_says(block, tmp_path, monkeypatch, capsys):
    path = tmp_path / "site.yaml"
    path.write_text(block)
    site = read_site(path)
    monkeypatch.setattr("sweeps.commands.read_site", lambda: site)
    monkeypatch.setenv("PATH", "/usr/share/empty")  # with no Slurm on it
    root = [] if "data" in site else ["data.root=/datasets"]
    words = ["sweep=ablation_offsets", "arms=[zero]", "seeds=[0]", *root, "--slurm", "--dry-run", "--json"]
    assert command_line.main([*words, *([] if "runs_dir" in site else [f"runs_dir={tmp_path}"])]) == 0
    (batch,) = json.loads(capsys.readouterr().out)
    assert expected(site) <= set(batch["script"].splitlines())
    assert f"#SBATCH --chdir={site.get('runs_dir', tmp_path)}/code/" in batch["script"]
    if python := site.get("slurm", {}).get("python"):
        *container, interpreter = shlex.split(python)
        (started,) = [line for line in batch["script"].splitlines() if line.startswith("srun ")]
        assert f" {interpreter} -u -m submitit" in started and shlex.join(container) in started


def test_the_docs_show_every_kind_of_environment():
    text = "\n".join(BLOCKS)
    assert all(word in text for word in ("module load", "conda activate", "apptainer exec")) and len(BLOCKS) > 4
