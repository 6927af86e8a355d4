"""Fit the spectra of `physml.tracking.spectrum` to Pythia, or to a particle table of TrackML.

    python -m data_scripts.pileup_spectrum --folder my_spectrum
    python -m data_scripts.pileup_spectrum --folder my_spectrum --trackml event-particles.csv

Pythia 8 (the extra `pythia`, which is built from source) makes inelastic collisions of soft QCD and
top-quark pairs at 14 TeV; particles that live longer than 10 mm / c stay undecayed. Block k of a
process is a pure function of (seed, k). Finished blocks stay in the folder `blocks`; the same
command goes on where it stopped, and with more blocks it adds to them. The fitted numbers, which
`spectrum.DEFAULT` has the form of, go to `spectrum.json`.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from physml.errors import ConfigError, DataError, PhysmlError
from physml.io import hdf5, manifest
from physml.progress import progress
from physml.tracking.spectrum import LOWEST, MASS, WIDEST, Kind, plateau, survival

PROCESSES = {
    "pile_up": ("SoftQCD:inelastic = on",),
    "hard": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on"),
}
COMMON = (
    "Beams:eCM = 14000.", "ParticleDecays:limitTau0 = on", "ParticleDecays:tau0Max = 10.",
    "Print:quiet = on", "Random:setSeed = on",
)  # fmt: skip
BLOCK = {"pile_up": 1000, "hard": 100}  # collisions that are saved together


class Sample(NamedTuple):
    """Prompt charged particles above `LOWEST` and within `WIDEST`."""

    count: np.ndarray  # particles of each collision
    pt: np.ndarray  # GeV
    eta: np.ndarray  # absolute
    pdg: np.ndarray  # absolute; 0: unknown


class Task(NamedTuple):
    """One block of collisions and the file it goes to."""

    process: str
    seed: int
    path: Path


def fit(sample: Sample) -> Kind:
    """Numbers of a kind of collision: maximum likelihood in pT and eta, moments of the counts.

    Raises:
        DataError: fewer than 100 particles.
    """
    if len(sample.pt) < 100:
        raise DataError("particles", f"only {len(sample.pt)} to fit", "give more collisions")
    seen = sample.count[sample.count > 0]
    mean, spread = seen.mean(), seen.var() - seen.mean()
    shape = float(mean**2 / spread) if len(seen) > 1 and spread > 0 else 10.0  # one tells nothing
    silent = float((sample.count == 0).mean())
    temperature, power, mass = np.exp(_lowest(_pt_cost, [0.15, 6.0, 0.3], sample.pt))
    middle, edge = np.exp(_lowest(_eta_cost, [4.0, 0.7], sample.eta))
    return Kind(float(mean), shape, silent, *map(float, (temperature, power, mass, middle, edge)))


def _lowest(cost: object, start: list[float], values: np.ndarray) -> np.ndarray:
    """Logarithms of the positive numbers at which a cost is lowest."""
    options = {"maxiter": 4000, "xatol": 1e-5, "fatol": 1e-5}
    found = minimize(cost, np.log(start), args=(values,), method="Nelder-Mead", options=options)
    return found.x


def _pt_cost(logs: np.ndarray, pt: np.ndarray) -> float:
    """Minus the mean logarithm of the likelihood of transverse momenta."""
    temperature, power, mass = np.exp(logs)
    if not (2.05 < power < 100 and temperature < 10 and mass < 10):
        return np.inf
    kind = Kind(1.0, 1.0, 0.0, temperature, power, mass, 1.0, 1.0)
    scale = power * temperature
    density = np.log(pt) - power * np.log1p((np.hypot(pt, mass) - mass) / scale)
    # `survival` times the scale over (n - 1) is the integral of this density.
    whole = survival(kind, np.array([LOWEST]))[0] * scale / (power - 1)
    return float(np.log(whole) - density.mean())


def _eta_cost(logs: np.ndarray, eta: np.ndarray) -> float:
    """The same of pseudorapidities."""
    middle, edge = np.exp(logs)
    if not (middle < 20 and 0.01 < edge < 20):
        return np.inf
    kind = Kind(1.0, 1.0, 0.0, 1.0, 3.0, 0.1, middle, edge)
    grid = np.linspace(0.0, WIDEST, 1001)
    return float(
        np.log(np.trapezoid(plateau(kind, grid), grid)) - np.log(plateau(kind, eta)).mean()
    )


def species(sample: Sample) -> dict[str, float]:
    """Share of each species that the simulation knows, and of all others; none if not told."""
    if not sample.pdg.any():
        return {}
    known = {str(code): float((sample.pdg == code).mean()) for code in MASS}
    return {**known, "others": 1.0 - sum(known.values())}


def read_trackml(path: Path) -> dict[str, Sample]:
    """Pile-up and hard collision of a particle table of the TrackML challenge.

    Identities hold the collision in their upper 12 bits, and zeros in the lower 16 for particles
    that no material made; the first collision is the hard one.

    Raises:
        DataError: the table cannot be read, or lacks columns.
    """
    names = ("particle_id", "vx", "vy", "px", "py", "pz")
    try:
        opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
        with opened as file:
            header = file.readline().strip().split(",")
            places = [header.index(name) for name in names]
            rows = [[line.split(",")[k] for k in places] for line in file]
        identity = np.array([int(row[0]) for row in rows])
        vx, vy, px, py, pz = np.array([row[1:] for row in rows], float).T
    except (OSError, ValueError, IndexError) as error:
        raise DataError(
            path, f"is no particle table ({error})", "give event...-particles.csv"
        ) from error
    pt = np.hypot(px, py)
    eta = np.abs(np.arcsinh(pz / pt))
    own = (np.hypot(vx, vy) < 0.1) & (identity & 0xFFFF == 0) & (pt > LOWEST) & (eta < WIDEST)
    collision = (identity >> 52)[own]
    found = {}
    for process, chosen in (("pile_up", collision > 1), ("hard", collision == 1)):
        count = np.bincount(collision[chosen])[2 if process == "pile_up" else 1 :]
        unknown = np.zeros(chosen.sum(), np.int64)
        found[process] = Sample(count, pt[own][chosen], eta[own][chosen], unknown)
    return found


def make_block(task: Task) -> Path:
    """Generate the collisions of a block and write them, or leave a block alone that is done."""
    if task.path.exists():
        return task.path
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for setting in (*COMMON, *PROCESSES[task.process], f"Random:seed = {task.seed}"):
        pythia.readString(setting)
    if not pythia.init():
        raise DataError(task.process, "Pythia refuses its settings", "check pythia8mc's version")
    count, rows = [], []
    while len(count) < BLOCK[task.process]:
        if not pythia.next():
            continue
        before = len(rows)
        for particle in pythia.event:
            if particle.isFinal() and particle.isCharged() and particle.pT() > LOWEST:
                eta = abs(particle.eta())
                if eta < WIDEST:
                    rows.append((particle.pT(), eta, abs(particle.id())))
        count.append(len(rows) - before)
    pt, eta, pdg = np.array(rows).reshape(-1, 3).T
    arrays = {"count": np.array(count), "pt": pt, "eta": eta, "pdg": pdg.astype(np.int64)}
    hdf5.write(task.path, arrays)
    return task.path


def plan(folder: Path, seed: int, blocks: int) -> list[Task]:
    """Tasks of a folder; refuses one that holds blocks of other settings.

    Raises:
        ConfigError: pythia8mc is missing, or the folder was begun with other settings.
        DataError: its settings cannot be read.
    """
    try:
        wanted = {"seed": seed, "pythia8mc": version("pythia8mc"), "common": list(COMMON),
                  "processes": {name: list(p) for name, p in PROCESSES.items()}}  # fmt: skip
    except PackageNotFoundError:
        remedy = "pip install 'physml[pythia]' (it is built for half an hour) or give --trackml"
        raise ConfigError("pythia8mc", "is not installed", remedy) from None
    noted = folder / "blocks" / "settings.json"
    if noted.exists():
        if manifest.read_json(noted) != wanted:
            raise ConfigError(folder, "holds blocks of other settings", "use another folder")
    else:
        manifest.write_json(noted, wanted)
    return [
        Task(process, seed + k, noted.parent / f"{process}-{k:04d}.h5")
        for process in PROCESSES
        for k in range(blocks)
    ]


def generate(tasks: list[Task], processes: int) -> dict[str, Sample]:
    """All blocks of each process, made where they are missing."""
    with multiprocessing.get_context("spawn").Pool(min(processes, len(tasks))) as pool:
        paths = list(progress(pool.imap(make_block, tasks), "blocks", len(tasks)))
    found = {}
    for process in PROCESSES:
        own = [p for p, task in zip(paths, tasks, strict=True) if task.process == process]
        blocks = [hdf5.read(path) for path in own]
        columns = (np.concatenate([block[name] for block in blocks]) for name in Sample._fields)
        found[process] = Sample(*columns)
    return found


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--folder", type=Path, required=True, help="where the results go")
    parser.add_argument("--trackml", type=Path, help="fit this particle table, without Pythia")
    sizes = ", ".join(f"{n} {name}" for name, n in BLOCK.items())
    parser.add_argument("--blocks", type=int, default=20, help=f"of {sizes} collisions each")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="one per core")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    """Make or read particles, fit them, write the numbers.

    Raises:
        ConfigError: an option is out of range, Pythia is missing, or the folder holds other blocks.
        DataError: a file is damaged.
    """
    for option, least, most in (
        ("blocks", 1, 9999),
        ("processes", 1, 9999),
        ("seed", 1, 8 * 10**8),
    ):
        value = getattr(options, option)
        if not least <= value <= most:
            raise ConfigError(f"--{option}", f"is {value}", f"give {least} to {most}")
    if options.trackml is not None:
        samples, source = read_trackml(options.trackml), options.trackml.name
    else:
        samples = generate(plan(options.folder, options.seed, options.blocks), options.processes)
        source = f"pythia8mc {version('pythia8mc')}"
    about = {
        name: {"collisions": len(sample.count), "particles": len(sample.pt),
               "kind": fit(sample)._asdict(), "species": species(sample)}
        for name, sample in samples.items()
    }  # fmt: skip
    manifest.write_json(options.folder / "spectrum.json", {"source": source, **about})
    print(manifest.dumps(about), end="")


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
