"""Make relaxed minima of point defects in bcc iron, with formation energies and entropies.

    python -m data_scripts.iron_defects --starts 3200 --folder my_defects

Random starts of the classes I1-I4 and V1-V4 are relaxed under the Ackland-Mendelev 2004
potential at fixed lattice constant, and their classical harmonic formation entropy at 1000 K is
computed. Start k is a pure function of (seed, k): the result does not depend on how many
processes made it, nor on how often they were killed. Finished blocks of starts stay in the folder
`blocks`; the same command goes on where it stopped, and with more starts it adds to them.
As an array job, each element makes its share and the last one joins them (docs/clusters.md).
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from physml import cluster
from physml.atoms import relax, vibrational_entropy
from physml.atoms.defects import IRON_A0, bcc, defect_class, random_defect
from physml.atoms.potentials import ackland_mendelev_2004, evaluate
from physml.errors import ConfigError, DataError, PhysmlError, TrainingError
from physml.io import hdf5, manifest, minima
from physml.progress import progress

TEMPERATURE = 1000.0  # K
BLOCK = 20  # starts that are saved together
# Classes of forty successive starts; clusters with many distinct minima come most often, and the
# last of the forty is a single vacancy or dumbbell in turn.
SCHEDULE = ("I4",) * 12 + ("I3",) * 9 + ("V4",) * 13 + ("V3",) * 3 + ("I2", "V2")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Reference(NamedTuple):
    """Perfect crystal with its energy, eV, and entropy, kB."""

    crystal: Atoms
    energy: float
    entropy: float


@functools.cache
def reference(cells: int) -> Reference:
    """Perfect crystal of 2 cells^3 atoms."""
    crystal, potential = bcc(cells), ackland_mendelev_2004()
    energy = float(evaluate(crystal, potential)[0].sum())
    return Reference(crystal, energy, vibrational_entropy(crystal, potential, TEMPERATURE))


def start_class(index: int) -> str:
    """Class of start `index`; every fortieth is a single defect."""
    place = index % (len(SCHEDULE) + 1)
    single = "I1" if index // (len(SCHEDULE) + 1) % 2 else "V1"
    return SCHEDULE[place] if place < len(SCHEDULE) else single


def make_minimum(seed: int, index: int, cells: int) -> minima.Minimum:
    """Relax start `index` and compute its formation energy and entropy.

    Raises:
        TrainingError: the relaxation reached no minimum.
    """
    bulk, potential = reference(cells), ackland_mendelev_2004()
    rng = np.random.default_rng([seed, index])
    atoms = relax(random_defect(bulk.crystal, start_class(index), rng), potential, seed=index)
    share = len(atoms) / len(bulk.crystal)
    energy = float(evaluate(atoms, potential)[0].sum()) - share * bulk.energy
    entropy = vibrational_entropy(atoms, potential, TEMPERATURE) - share * bulk.entropy
    sites, offsets = minima.encode(atoms.positions, cells, IRON_A0)
    name = defect_class(atoms, len(bulk.crystal))
    return minima.Minimum(name, index, energy, entropy, sites, offsets)


class Task(NamedTuple):
    """One block of starts and the file it goes to."""

    seed: int
    first: int
    last: int
    cells: int
    path: Path


def make_block(task: Task) -> Path:
    """Relax the starts of a block and write them, or leave a block alone that is done."""
    if task.path.exists():
        return task.path
    made, failed = [], []
    for index in range(task.first, task.last):
        try:
            made.append(make_minimum(task.seed, index, task.cells))
        except (TrainingError, DataError):  # no minimum found, or a saddle in the end
            failed.append(index)
    arrays = {**minima.pack(made), "failed": np.array(failed, dtype=np.int32)}
    hdf5.write(task.path, arrays)
    return task.path


def single_thread() -> None:
    """Give each worker process one thread; set before it loads NumPy and JAX."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    os.environ.update(dict.fromkeys(THREADS, "1"))


def make_blocks(tasks: Sequence[Task], processes: int) -> Iterator[Path]:
    """Paths of the blocks as they are finished, in order."""
    single_thread()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(make_block, tasks)


def settings(seed: int, cells: int) -> dict[str, object]:
    """What the blocks of a folder must have in common."""
    potential = ackland_mendelev_2004().name
    return {"seed": seed, "cells": cells, "a0_angstrom": IRON_A0, "potential": potential}


def plan(folder: Path, seed: int, starts: int, cells: int) -> list[Task]:
    """Tasks of a folder; refuses one that holds blocks of other settings.

    Raises:
        ConfigError: the folder was begun with another seed or size.
        DataError: its settings cannot be read.
    """
    blocks, wanted = folder / "blocks", settings(seed, cells)
    noted = blocks / "settings.json"
    if noted.exists():
        found = manifest.read_json(noted)
        if found != wanted:
            raise ConfigError(folder, f"holds blocks made with {found}", "use another folder")
    else:
        manifest.write_json(noted, wanted)
    name = "starts-{:06d}-{:06d}.h5"
    return [
        Task(
            seed, k, min(k + BLOCK, starts), cells, blocks / name.format(k, min(k + BLOCK, starts))
        )
        for k in range(0, starts, BLOCK)
    ]


def merge(folder: Path, paths: list[Path], seed: int, cells: int) -> dict[str, object]:
    """Write `iron_defects.h5` with the distinct minima of all blocks, and its manifest."""
    found: list[minima.Minimum] = []
    failed: list[int] = []
    for path in paths:
        arrays = hdf5.read(path)
        found += minima.unpack(arrays, path)
        failed += arrays["failed"].tolist()
    kept = minima.distinct(found)
    name = "iron_defects.h5"
    hdf5.write(folder / name, minima.pack(kept))
    about = {
        "minima": len(kept),
        "classes": dict(sorted(Counter(m.name for m in kept).items())),
        "starts": len(found) + len(failed),
        "repeats": len(found) - len(kept),
        "starts_without_minimum": failed,
    }
    return manifest.write_manifest(
        folder,
        {name: about},
        made_by="python -m data_scripts.iron_defects",
        settings=settings(seed, cells),
        temperature_kelvin=TEMPERATURE,
        units={"formation_energy": "eV", "formation_entropy": "kB", "offsets": "1e-5 angstrom"},
        versions={name: version(name) for name in ("jax", "numpy", "scipy", "ase", "vesin")},
    )


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--folder", type=Path, required=True, help="where the results go")
    parser.add_argument("--starts", type=int, default=3200, help="random starts (default 3200)")
    parser.add_argument("--cells", type=int, default=8, help="cubic cells per edge (default 8)")
    parser.add_argument("--seed", type=int, default=20261121)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--processes", type=int, default=cores, help="default: one per core")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    """Make what is missing, merge, and say what was made.

    Raises:
        ConfigError: an option is out of range, or the folder holds other blocks.
        DataError: a block is damaged.
    """
    for option, least in (("starts", 1), ("cells", 4), ("processes", 1), ("seed", 0)):
        if getattr(options, option) < least:
            value = getattr(options, option)
            raise ConfigError(f"--{option}", f"is {value}", f"give {least} or more")
    tasks = plan(options.folder, options.seed, options.starts, options.cells)
    own = cluster.share(tasks)  # of an array job, this element's
    blocks = make_blocks(own, max(min(options.processes, len(own)), 1))
    for _ in progress(blocks, f"blocks of {BLOCK} starts", len(own)):
        pass
    missing = sum(not task.path.exists() for task in tasks)
    if missing:  # the last element of the array to end merges
        print(f"{missing} of {len(tasks)} blocks are left to others", file=sys.stderr)
        return
    made = merge(options.folder, [task.path for task in tasks], options.seed, options.cells)
    print(manifest.dumps(made["files"]), end="")


def main() -> None:
    """Command line: exit 2 with one line for bad input, 130 when interrupted."""
    try:
        run(parse())
    except (PhysmlError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
