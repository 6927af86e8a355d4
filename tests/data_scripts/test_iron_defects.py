"""The maker of iron defects: killed and restarted, it ends with the same file; refusals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_scripts import iron_defects
from physml.atoms.defects import IRON_A0, bcc
from physml.atoms.potentials import ackland_mendelev_2004, evaluate
from physml.errors import ConfigError
from physml.io import hdf5, minima
from physml.io.manifest import read_manifest

ROOT = Path(__file__).parents[2]
OPTIONS = ["--starts", "60", "--cells", "4", "--processes", "1"]


def start(folder, *options):
    command = [sys.executable, "-m", "data_scripts.iron_defects", "--folder", str(folder)]
    return subprocess.Popen(
        [*command, *OPTIONS, *options],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after_first_block(folder):
    process = start(folder)
    deadline = time.monotonic() + 300
    while not list(folder.glob("blocks/starts-*.h5")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return len(list(folder.glob("blocks/starts-*.h5")))


@pytest.fixture(scope="module")
def killed_and_whole(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("killed", "whole")]
    done_when_killed = kill_after_first_block(folders[0])
    for folder in folders:
        process = start(folder)
        _, complaint = process.communicate(timeout=600)
        assert process.returncode == 0, complaint
    return folders, done_when_killed


def test_a_kill_changes_nothing(killed_and_whole):
    """SIGKILL after the first of three blocks: data and manifest end with the same bytes."""
    (killed, whole), done = killed_and_whole
    assert 1 <= done < 3
    for name in ("iron_defects.h5", "manifest.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_stored_minima_are_minima(killed_and_whole):
    """Stored energies belong to the stored positions; no two minima of a class agree."""
    (folder, _), _ = killed_and_whole
    about = read_manifest(folder)["files"]["iron_defects.h5"]
    stored = minima.unpack(hdf5.read(folder / "iron_defects.h5"), "stored")
    assert len(stored) == about["minima"] == len(minima.distinct(stored))
    assert about["starts"] == about["minima"] + about["repeats"] + len(
        about["starts_without_minimum"]
    )
    crystal, potential = bcc(4), ackland_mendelev_2004()
    whole = evaluate(crystal, potential)[0].sum()
    for m in stored[:5]:
        atoms = crystal[m.sites]
        atoms.positions = minima.decode(m, 4, IRON_A0)
        energies, forces, _ = evaluate(atoms, potential)
        assert energies.sum() - len(atoms) / 128 * whole == pytest.approx(m.energy, abs=1e-5)
        assert np.abs(forces).max() < 1e-3


def test_a_folder_of_other_settings_is_refused(killed_and_whole):
    """Blocks of another seed are never mixed in."""
    (folder, _), _ = killed_and_whole
    process = start(folder, "--seed", "7")
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 2
    assert complaint.count("\n") == 1
    assert "holds blocks made with" in complaint


@pytest.mark.parametrize("option", ["--starts", "--cells", "--processes", "--seed"])
def test_options_out_of_range(option, tmp_path, monkeypatch):
    """Named in one line; nothing is written."""
    folder = tmp_path / "new"
    monkeypatch.setattr(sys, "argv", ["iron_defects", "--folder", str(folder), option, "-1"])
    with pytest.raises(ConfigError, match=option):
        iron_defects.run(iron_defects.parse())
    assert not folder.exists()


def test_schedule_holds_every_class():
    """Forty starts in a row hold all clusters; eighty also both single defects."""
    names = {iron_defects.start_class(k) for k in range(80)}
    assert names == {"I1", "I2", "I3", "I4", "V1", "V2", "V3", "V4"}


def test_the_last_element_of_an_array_joins_the_blocks_of_all(tmp_path, monkeypatch, capsys):
    def touched(tasks, processes):
        for task in tasks:
            task.path.touch()
            yield task.path

    joined = []
    monkeypatch.setattr(iron_defects, "make_blocks", touched)
    monkeypatch.setattr(
        iron_defects, "merge", lambda folder, paths, *rest: joined.append(paths) or {"files": {}}
    )
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "0")
    options = ["iron_defects", "--folder", str(tmp_path), *OPTIONS]
    monkeypatch.setattr(sys, "argv", options)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    iron_defects.main()
    assert "2 of 3 blocks are left to others" in capsys.readouterr().err and not joined
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    iron_defects.main()
    assert len(joined) == 1 and len(joined[0]) == 3
