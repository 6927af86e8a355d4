"""Tune the shower maker against Geant4 electrons, and compare it with those it was not tuned on.

    python -m data_scripts.shower_tuning --data shared/calo --folder my_tuning
    python -m data_scripts.shower_tuning --check

Needs `geant4_ds2like_electrons.hdf5` and `geant4_calogan_electrons.hdf5` (or other showers in these
geometries), by default in the folder `calo` of `PHYSML_SHARED_DATA`. Showers of even number tune
`physml.calorimeter.simulate.Tuning`, one per sample; those of odd number are compared with the
result. Prints both tables and writes the numbers behind them to `shower_tuning.h5` of the folder,
if one is given. The parameters are then written into `simulate.TUNED` by hand. With --check these
are compared only.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import least_squares

from physml import showers
from physml.calorimeter import events, geometry, readers
from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import Geometry
from physml.calorimeter.plots import maker_figure
from physml.calorimeter.simulate import TUNED, Tuning, simulate
from physml.errors import DataError, PhysmlError
from physml.io import hdf5
from physml.plots import save

RANGES = ((1.0, 5.0), (5.0, 20.0), (20.0, 100.0))  # GeV
COPIES = 20  # showers of the maker for each of Geant4, in the comparison; a quarter in the fit
KEY = 20261121
PROFILE = showers.Tuning._fields
TARGETS = {"depth": 0.03, "width": 0.10, "radius": 0.10, "hits": 0.15}
TOLERANCE = {name: target / 3 for name, target in TARGETS.items()} | {"core": 0.03}
"""Share of a value below which a difference counts little in the fit; of spreads 0.1."""


LEAD_ARGON = 0.075
"""Relative spread at 1 GeV of the deposits in argon alone, `active_layer_*` of the second file:
0.076, 0.071 and 0.078 in the three ranges, each to 7 %. Its voxels count lead too."""


class Sample(NamedTuple):
    """Showers of Geant4 and what of the maker they can decide."""

    file: str
    geometry: Geometry
    free: tuple[str, ...]  # parameters of `Tuning` and of its profile
    start: Tuning


def samples() -> dict[str, Sample]:
    """The two samples by passive material."""
    shape = ("depth", "exponent", "depth_width", "exponent_width", "radius")
    return {
        "W": Sample(
            "geant4_ds2like_electrons.hdf5", geometry.dataset_2(),
            (*shape, "stochastic", "lateral"), Tuning(lateral=0.05),
        ),
        "Pb": Sample(
            "geant4_calogan_electrons.hdf5", geometry.calogan(),
            (*shape, "share", "whole", "lateral"),
            Tuning(stochastic=LEAD_ARGON, whole=1000.0, lateral=0.05),
        ),
    }  # fmt: skip


def measure(found: Showers, voxels: Geometry) -> dict[str, np.ndarray]:
    """Numbers of each shower: centre and rms in depth (X0), radius (mm), lit voxels, and so on.

    `core` is the share of the first layer or ring that lies within 5 mm of the axis, `eta` the mean
    place across (mm), `total` the energy of all voxels over the incident one.
    """
    deposits = found.deposits.astype(np.float64)
    centre = geometry.centres(voxels)
    depths = np.array([layer.depth for layer in voxels.layers], np.float64).mean(axis=1)
    depth, total = depths[centre.layer], np.maximum(deposits.sum(axis=1), 1e-9)
    mean = deposits @ depth / total
    square = deposits @ depth**2 / total - mean**2
    polar = all(layer.polar for layer in voxels.layers)
    fine = np.ones(voxels.size, bool) if polar else centre.layer == 0
    near = fine & (np.abs(centre.r if polar else centre.eta) < 5.0)
    inside = np.maximum(deposits[:, fine].sum(axis=1), 1e-9)
    return {
        "depth": mean,
        "width": np.sqrt(np.maximum(square, 0.0)),
        "radius": deposits @ centre.r / total,
        "hits": np.count_nonzero(deposits, axis=1).astype(np.float64),
        "core": deposits[:, near].sum(axis=1) / inside,
        "eta": deposits[:, fine] @ centre.eta[fine] / inside,
        "total": total / found.incident_energy,
    }


class Summary(NamedTuple):
    """Means and spreads of `measure` in each range of energy, with their statistical errors."""

    names: tuple[str, ...]
    value: np.ndarray  # (names, ranges)
    error: np.ndarray


SUMMARISED = (
    *((name, False) for name in ("depth", "width", "radius", "hits", "core")),
    *((name, True) for name in ("depth", "width", "radius", "eta")),
)


def summarise(found: Showers, voxels: Geometry) -> Summary:
    """Summary of showers.

    Raises:
        DataError: fewer than two showers in a range of energy.
    """
    numbers, energy = measure(found, voxels), found.incident_energy / 1e3
    value, error = np.zeros((2, len(SUMMARISED), len(RANGES)))
    for column, (low, high) in enumerate(RANGES):
        inside = (energy >= low) & (energy < high)
        n = int(inside.sum())
        if n < 2:
            what = f"holds {n} showers of {low:g} to {high:g} GeV"
            raise DataError("sample", what, "give 2 or more in each range")
        for row, (name, spread) in enumerate(SUMMARISED):
            part = numbers[name][inside]
            deviation = part.std(ddof=1)
            value[row, column] = deviation if spread else part.mean()
            error[row, column] = deviation / np.sqrt(2 * n if spread else n)
    names = tuple(f"spread of {name}" if spread else name for name, spread in SUMMARISED)
    return Summary(names, value, error)


def with_values(tuning: Tuning, names: tuple[str, ...], values: np.ndarray) -> Tuning:
    """Tuning with some parameters replaced."""
    new = {name: float(value) for name, value in zip(names, values, strict=True)}
    profile = tuning.profile._replace(**{k: v for k, v in new.items() if k in PROFILE})
    return tuning._replace(profile=profile, **{k: v for k, v in new.items() if k not in PROFILE})


def made(truth: Showers, sample: Sample, tuning: Tuning, copies: int) -> Showers:
    """Showers of the maker at the energies of others."""
    energy = np.tile(truth.incident_energy, copies)
    return simulate(KEY, energy, sample.geometry, "electron", tuning)


def tune(truth: Showers, sample: Sample) -> Tuning:
    """Tuning that brings the summary of the maker closest to that of the showers.

    Least squares in units of the errors and of `TOLERANCE`; the maker draws the same deviates each
    time.
    """
    target = summarise(truth, sample.geometry)
    shares = np.array([TOLERANCE.get(name, 0.1) for name in target.names])
    scale = np.hypot(target.error, shares[:, None] * np.abs(target.value))
    named = {**sample.start._asdict(), **sample.start.profile._asdict()}
    start = np.array([named[name] for name in sample.free])
    shifts = np.isin(sample.free, ("depth", "exponent"))
    unit = np.where(shifts, 1.0, start)

    def residual(x: np.ndarray) -> np.ndarray:
        tuning = with_values(sample.start, sample.free, start + unit * (x - 1))
        ours = summarise(made(truth, sample, tuning, COPIES // 4), sample.geometry)
        return np.asarray(((ours.value - target.value) / scale).ravel())

    one = np.ones(len(start))
    low = np.where(shifts, 0.2, 0.1)
    fit = least_squares(residual, one, bounds=(low, 5.0), diff_step=0.05, max_nfev=12)
    values = start + unit * (fit.x - 1)
    return with_values(sample.start, sample.free, np.array([float(f"{v:.3g}") for v in values]))


def table(ours: Summary, theirs: Summary) -> str:
    """Lines of the comparison, one for each number; ranges side by side."""
    lines = []
    for row, name in enumerate(ours.names):
        line = f"{name:17s}"
        for column in range(len(RANGES)):
            a, b = ours.value[row, column], theirs.value[row, column]
            change, error = 100 * (a / b - 1), 100 * theirs.error[row, column] / b
            line += f" | {b:8.3f} {a:8.3f} {change:+6.1f} +- {error:4.1f} %"
        lines.append(line)
    return "\n".join(lines)


class Target(NamedTuple):
    """One number of the maker beside that of Geant4 showers that it was not tuned on."""

    sample: str  # "W": tungsten and silicon; "Pb": lead and argon
    name: str  # of `TARGETS`: depth and width X0, radius mm, hits
    low: float  # of the range of energies, GeV
    high: float
    geant4: float
    geant4_error: float  # statistical
    maker: float
    maker_error: float
    allowed: float  # share of the value by which they may differ

    @property
    def change(self) -> float:
        """Maker over Geant4, less 1."""
        return self.maker / self.geant4 - 1

    @property
    def met(self) -> bool:
        """Whether the values differ by no more than is allowed."""
        return abs(self.change) <= self.allowed


def targets(name: str, ours: Summary, theirs: Summary) -> list[Target]:
    """All targets of a sample, by name and range of energy."""
    found = []
    for part, share in TARGETS.items():
        row = ours.names.index(part)
        for k, (low, high) in enumerate(RANGES):
            g, g_error, m, m_error = (float(x[row, k]) for x in (*theirs[1:], *ours[1:]))
            found.append(Target(name, part, low, high, g, g_error, m, m_error, share))
    return found


def figure(found: list[Target]) -> Figure:
    """The targets, drawn."""
    labels = {
        "depth": "mean depth (X0)", "width": "rms depth (X0)", "radius": "mean radius (mm)",
        "hits": "voxels hit", "W": "tungsten and silicon", "Pb": "lead and argon",
    }  # fmt: skip
    title = "electrons of Geant4 11.4.0 that the maker was not tuned on"
    return maker_figure(found, labels, title=title)


def missed(found: list[Target]) -> list[str]:
    """Targets that are not met, one line each."""
    return [
        f"{x.name} at {x.low:g}-{x.high:g} GeV: {100 * x.change:+.1f} +- "
        f"{100 * x.geant4_error / x.geant4:.1f} % (target {100 * x.allowed:g} %)"
        for x in found
        if not x.met
    ]


def run(options: argparse.Namespace) -> None:
    """Tune, compare, print and write."""
    arrays: dict[str, np.ndarray] = {}
    found: list[Target] = []
    for name, sample in samples().items():
        truth = readers.read(options.data / sample.file, sample.geometry).showers
        half = [events.select(truth, slice(k, None, 2)) for k in (0, 1)]
        tuning = TUNED[name] if options.check else tune(half[0], sample)
        print(f"{name}: {tuning}")
        edges = "  ".join(f"{low:g} to {high:g} GeV: Geant4, maker, change" for low, high in RANGES)
        for part, truth in zip(("tuned on", "not tuned on"), half, strict=True):
            theirs = summarise(truth, sample.geometry)
            ours = summarise(made(truth, sample, tuning, COPIES), sample.geometry)
            print(f"{part}, {len(truth.incident_energy)} showers; {edges}\n{table(ours, theirs)}")
            arrays[f"{name}/{part}/geant4"], arrays[f"{name}/{part}/error"] = theirs[1:]
            arrays[f"{name}/{part}/maker"] = ours.value
        found += targets(name, ours, theirs)
        lines = missed(targets(name, ours, theirs))
        print("\n".join(["missed:", *lines]) if lines else "all met")
    names = [name.encode() for name in ours.names]
    arrays |= {"names": np.array(names), "ranges_gev": np.array(RANGES)}
    if options.folder is not None:
        hdf5.write(options.folder / "shower_tuning.h5", arrays)
    if options.figure is not None:
        save(figure(found), options.figure)


def main() -> None:
    """Command line: exit 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    shared = Path(os.environ.get("PHYSML_SHARED_DATA", ".")) / "calo"
    parser.add_argument("--data", type=Path, default=shared, help="folder of the two files")
    parser.add_argument("--folder", type=Path, help="where the results go")
    parser.add_argument("--figure", type=Path, help="PNG of the comparison")
    parser.add_argument("--check", action="store_true", help="compare only, with `simulate.TUNED`")
    try:
        run(parser.parse_args())
    except (PhysmlError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
