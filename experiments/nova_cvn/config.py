"""Neutrino events in two detector views, classified as numu, nue, nutau, NC or cosmic.

Paper: Aurisano et al., arXiv 1604.01444 (NOvA's convolutional visual network).
Cost: smoke about a minute, default under 5 minutes on 2 CPU cores, no download; paper: a GPU.
Expected: the claims of this folder's README, on events of our own simplified maker, which is not a
simulation of NOvA: no number here is comparable with a published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from physml.errors import ConfigError
from physml.options import Descent, check_descent, check_ranges


@dataclass(frozen=True)
class Config:
    """Options of the neutrino experiment."""

    seed: int = 0  # of training events, weights, batches; the test events are the same for all
    events: int = 100_000  # training events
    validation: int = 2_000  # events that choose the best weights
    test: int = 20_000  # events that are only measured on
    data: Path | None = None  # own pixel maps in HDF5, any layout of physml.neutrino.readers
    axes: str | None = None  # order of their axes, when the file's own is not the usual one
    min_hits: int = 20  # fewest hit pixels of an event
    full_scale: float = 0.255  # GeV, energy of the brightest level of a pixel
    exposure: float = 8.85e20  # protons on target for expected events in 14 kt (PRD 98, 032012)
    network: Literal["sparse", "mobilenet", "googlenet"] = "sparse"
    width: int = 64  # of a token of the sparse network
    layers: int = 2  # of the sparse network
    patches: int = 48  # brightest 4 x 4 patches of an event that the networks see
    dropout: float = 0.0
    half: bool = False  # bfloat16 activations
    noise: float = 0.01  # relative spread put on pixels in training
    descent: Descent = Descent(
        steps=4200, batch_size=64, learning_rate=4e-3, weight_decay=0.01, evaluate_every=1050
    )


def check(config: Config) -> None:
    """Refuse options out of range before any work.

    Raises:
        ConfigError: names the option and the range.
    """
    ranges = {
        "events": (100, 10**8), "validation": (10, 10**7), "test": (100, 10**7),
        "min_hits": (1, 8000), "full_scale": (1e-4, 1e3), "exposure": (1.0, 1e25),
        "width": (8, 4096), "layers": (1, 100), "patches": (4, 1000), "dropout": (0.0, 0.9),
        "noise": (0.0, 1.0),
    }  # fmt: skip
    check_ranges(config, ranges)
    check_descent(config.descent)
    if config.width % 8:
        raise ConfigError("--width", f"is {config.width}", "give a multiple of 8")
    if config.axes is not None and config.data is None:
        raise ConfigError("--axes", "changes nothing without --data", "give --data too")


PRESETS: Mapping[str, Config] = {
    "smoke": Config(
        events=3000, validation=300, test=1500, width=32, layers=2,
        descent=Descent(steps=150, batch_size=64, learning_rate=3e-3, evaluate_every=50),
    ),
    "default": Config(),
    "paper": Config(
        events=1_000_000, validation=20_000, network="googlenet", patches=200, dropout=0.4,
        half=True,
        descent=Descent(
            steps=100_000, batch_size=256, learning_rate=1e-3, weight_decay=1e-4,
            evaluate_every=2000,
        ),
    ),
}  # fmt: skip
