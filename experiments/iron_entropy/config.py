"""Vibrational entropy of point defects in bcc iron, linear in descriptors of the atoms.

Paper: Phys. Rev. Materials 4, 063802 (2020).
Cost on 2 CPU cores, no download: smoke under a minute, default under 5, paper about twice that.
Expected: entropies of two published minima to 1e-3 kB; the mean errors in this folder's README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from physml.errors import ConfigError
from physml.options import check_ranges

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Config:
    """Options of the iron experiment; lengths in Å."""

    seed: int = 0  # of folds, pools and random features
    data: Path = DATA  # folder with iron_defects.h5 and its manifest.json
    structures: Path | None = None  # own relaxed structures, any format that ASE reads
    potential: Path | None = None  # own eam.fs or eam.alloy file; default Ackland-Mendelev 2004
    bulk: Path | None = None  # own perfect crystal; default bcc in the cell of the structures
    temperature: float = 1000.0  # K, of entropies computed from own structures
    minima: int | None = None  # use only the first so many (of own structures: at most so many)
    named: int = 12  # well-known defects to relax and check, 0 to 12; none with own structures
    cutoff: float = 5.0  # Å, reach of the descriptors
    n_max: int = 3  # radial functions
    l_max: int = 10  # angular order
    products: int = 33  # whitened components whose products are summed
    random_features: int = 4000  # random cosines, summed over atoms
    random_components: int = 24  # whitened components that enter the cosines
    random_scale: float = 0.1  # standard deviation of their frequencies
    folds: int = 5  # of the cross-validation
    pool: float = 0.02  # share of the minima that fixes the whitening, never tested on


def check(config: Config) -> None:
    """Refuse options out of range before any work.

    Raises:
        ConfigError: names the option and the range.
    """
    ranges = {
        "seed": (0, 2**32 - 1),
        "temperature": (1e-3, 1e5),
        "minima": (1, 10**9),
        "named": (0, 12),
        "cutoff": (1.0, 50.0),
        "n_max": (1, 20),
        "l_max": (0, 30),
        "products": (1, 10**4),
        "random_features": (1, 10**6),
        "random_components": (1, 10**4),
        "random_scale": (1e-6, 1e3),
        "folds": (2, 100),
        "pool": (1e-3, 0.5),
    }
    check_ranges(config, ranges)
    if config.structures is None:
        for name in ("potential", "bulk", "temperature"):
            if getattr(config, name) != getattr(PRESETS["default"], name):
                raise ConfigError(f"--{name}", "needs --structures", "give --structures too")


PRESETS: Mapping[str, Config] = {
    "smoke": Config(minima=240, named=2, products=8, random_features=100, pool=0.05),
    "default": Config(),
    "paper": Config(random_features=8000),
}
