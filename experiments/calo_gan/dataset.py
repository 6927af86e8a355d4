"""Showers to train on, to choose the best weights and to judge by: our maker's, or a user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from physml.calorimeter import events, readers
from physml.calorimeter import geometry as geometries
from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import Geometry
from physml.calorimeter.simulate import simulate
from physml.errors import ConfigError, DataError
from physml.train import Splits

from .config import Config, parse_columns

# Keys of the maker. Test showers do not depend on the seed, so that all runs share them.
KEYS = {"test": 1, "validation": 2, "train": 3}
DETECTORS = {
    "photons_1": geometries.dataset_1_photons,
    "pions_1": geometries.dataset_1_pions,  # for --data: our maker makes no pions
    "electrons_2": geometries.dataset_2,
    "electrons_3": geometries.dataset_3,
    "calogan": geometries.calogan,
}
DISCRETE = 256.0 * 2.0 ** np.arange(15)
"""MeV, of data set 1 of the CaloChallenge (arXiv 2410.21611)."""
SHARES = np.array([10.0] * 11 + [5.0, 3.0, 2.0, 1.0]) / 121
"""Of the showers at each of them in a file of photons."""
OPTIONS = {f"{maker.__name__}()": f"--detector {name}" for name, maker in DETECTORS.items()} | {
    "hits=HitColumns(...)": '--columns "incident_energy=E,cell=c,deposit=d"',
    "its geometry": "its --detector or --binning",
    "the geometry (XML)": "the --binning",
    "`voxel` for all cells": "the voxels' numbers, or read it in Python with HitColumns(voxel=...)",
    "take fewer rows, use iterate, or raise max_bytes": "give a file of fewer showers",
}
"""What remedies of the readers name -> the option that gives it."""
LEAST_ROWS = 1000  # of a user's file, a tenth of which is a test
LEAST_TEST = 100  # of a file of test showers alone


def geometry(config: Config) -> Geometry:
    """Layers and voxels that the options name."""
    if config.binning is not None:
        found = Geometry.from_xml(config.binning, config.particle)
        return found._replace(threshold=config.threshold or 0.0)
    return DETECTORS[config.detector]()


def load(config: Config) -> Splits:
    """Energies (MeV) and deposits (MeV) of the splits train and validation, float32.

    Says what is odd in a user's files, and refuses those of a test before the fit.

    Raises:
        DataError: see `own` and `readers.read`.
        ConfigError: a batch of more showers than there are to train on.
    """
    found = {
        name: _columns(showers(config, name, tell=name == "train"))
        for name in ("train", "validation")
    }
    rows, size = len(found["train"]["energy"]), config.training.batch_size
    if size > rows:
        what = f"is {size}, but {rows} showers are there to train on"
        raise ConfigError("--training.batch-size", what, f"give 1 to {rows}")
    if config.test_data is not None:
        own(config, "test", tell=True)
    return found


def showers(config: Config, name: str, *, tell: bool = False) -> Showers:
    """Showers of the split train, validation or test; `tell` says what is odd in a user's.

    Raises:
        DataError: see `own`.
    """
    if config.data is not None:
        return own(config, name, tell=tell)
    size = {"train": config.showers, "validation": config.validation, "test": config.test}[name]
    seed = 0 if name == "test" else config.seed
    key = (KEYS[name], seed)
    return simulate(key, incident_energies(config, name, size), geometry(config))


def incident_energies(config: Config, name: str, size: int) -> np.ndarray:
    """MeV: as the test showers of each published data set have them.

    The discrete ones of set 1 are trained on in equal numbers, and tested in those of its files.
    """
    if config.detector == "photons_1":
        shares = SHARES if name == "test" else np.full(len(DISCRETE), 1 / len(DISCRETE))
        ends = np.round(np.cumsum(shares) * size).astype(int)
        return np.repeat(DISCRETE, np.diff(ends, prepend=0))
    seed = 0 if name == "test" else config.seed
    draw = np.random.default_rng([KEYS[name], seed]).random(size)
    if config.detector == "calogan":
        return 1e3 + 99e3 * draw
    return 1e3 * 1e3**draw


def own(config: Config, name: str, *, tell: bool = False) -> Showers:
    """A user's showers: eight tenths to train on, one each to validate and to test.

    Which row goes where does not depend on the seed. A test file of its own is used whole, and the
    tenth that it replaces is trained on.

    Raises:
        DataError: see `readers.read`, with our options in its remedies; fewer than `LEAST_ROWS`
            showers, or `LEAST_TEST` in a test.
    """
    path = config.test_data if name == "test" and config.test_data else config.data
    assert path is not None
    found = _read(config, path, tell)
    count = len(found.incident_energy)
    least = LEAST_ROWS if path == config.data else LEAST_TEST
    if count < least:
        raise DataError(path, f"holds {count} showers", f"give {least} or more")
    if path != config.data:
        return found
    place = np.random.default_rng(0).permutation(count) * 10 // count
    tenths = {"train": place < 8, "validation": place == 8, "test": place == 9}
    if config.test_data is not None:
        tenths["train"] = place != 8
    return events.select(found, tenths[name])


def _read(config: Config, path: Path, tell: bool) -> Showers:
    hits = None
    if config.columns is not None and path.suffix == ".root":
        hits = readers.HitColumns(**parse_columns(config.columns))
    try:
        return readers.read(path, geometry(config), hits=hits, tell=tell).showers
    except DataError as error:
        remedy = error.remedy
        for argument, option in OPTIONS.items():
            remedy = remedy.replace(argument, option)
        raise DataError(error.where, error.what, remedy) from error


def _columns(found: Showers) -> dict[str, np.ndarray]:
    return {"energy": found.incident_energy.astype(np.float32), "deposits": found.deposits}
