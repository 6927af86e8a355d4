"""Showers in calorimeters from a conditional GAN, judged as the CaloChallenge judges.

Paper: the CaloChallenge (arXiv 2410.21611); Wasserstein GAN with gradient penalty (1704.00028), as
in FastCaloGAN (ATL-SOFT-PUB-2020-006); `--family calogan` is CaloGAN's own (arXiv 1712.10321).
Cost: smoke about a minute, default under 5 minutes on 2 CPU cores, no download; pretrained: an hour
on one core; paper and calogan: a GPU.
Expected: the claims of this folder's README. The showers are those of our parametrised maker, not
of Geant4; `--data` takes your own. `evaluate pretrained` judges weights that come with the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from physml.errors import ConfigError
from physml.options import Adversarial, applied, apply_to, check_adversarial, check_ranges

HITS = ("incident_energy", "cell", "deposit")
UNITS = {"MeV": 1.0, "GeV": 1e3}
COMMANDS = {
    "sample": "write showers of a finished fit: the challenge's HDF5, or ROOT",
    "pack": "write the generator of a finished fit as one file, with where it comes from",
}


@dataclass(frozen=True)
class Config:
    """Options of the shower experiment."""

    seed: int = 0  # of the training showers, weights and batches; the test showers stay the same
    detector: Literal["photons_1", "pions_1", "electrons_2", "electrons_3", "calogan"] = "photons_1"
    binning: Path | None = None  # XML of the challenge with your own layers, instead of a detector
    particle: str = "photon"  # in that file
    threshold: float | None = None  # MeV, of a voxel, with --binning: below it nothing is stored
    data: Path | None = None  # own showers to train on (HDF5 or ROOT) instead of our maker's
    test_data: Path | None = None  # own showers to judge by; else a tenth of --data
    columns: str | None = None  # lists of hits in ROOT: "incident_energy=E,cell=c,deposit=d"
    showers: int = 60_000  # to train on, from our maker
    validation: int = 6_000  # showers that choose the best weights, from our maker
    test: int = 12_100  # showers that are only judged by, from our maker
    family: Literal["whitened", "calogan"] = "whitened"  # of networks; see physml.calorimeter
    widths: tuple[int, ...] = (256, 256)  # hidden layers of the generator
    critic_widths: tuple[int, ...] = (384, 384, 256)
    training: Adversarial = Adversarial(steps=2_500, evaluate_every=500)
    energies: tuple[float, ...] = apply_to(())  # MeV, of `sample`; none: those of the test showers
    count: int = apply_to(1000)  # showers at each of --energies
    draw: int = apply_to(1)  # seed of `sample`: another gives other showers
    out: Path | None = apply_to()  # file that `sample` (.hdf5, .root) or `pack` (.hdf5) writes
    judge: Literal["reduced", "challenge"] = apply_to("reduced")  # classifiers; the latter: hours
    export: bool = apply_to(False)  # also write the generator as ONNX and StableHLO, and compare


def check(config: Config) -> None:
    """Refuse options out of range before any work.

    Raises:
        ConfigError: names the option and the range.
    """
    ranges = {
        "showers": (100, 10**8), "validation": (100, 10**7), "test": (400, 10**7),
        "count": (1, 10**8), "draw": (0, 2**32 - 1),
    }  # fmt: skip
    check_ranges(config, ranges)
    check_adversarial(config.training)
    for name in ("widths", "critic_widths"):
        values = getattr(config, name)
        if not values or not all(1 <= width <= 10**5 for width in values):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(option, f"are {values}", "give widths from 1 to 100000")
    for energy in config.energies:
        if not 10 <= energy <= 1e11:
            what = f"hold {energy:g} MeV"
            raise ConfigError("--energies", what, "give MeV from 10 to 1e11 (is it in GeV?)")
    if "count" in applied(config) and not config.energies:
        raise ConfigError("--count", "changes nothing without --energies", "give --energies too")
    if config.out is not None and config.out.suffix not in (".hdf5", ".h5", ".root"):
        raise ConfigError("--out", f"is {config.out}", "give a name that ends in .hdf5 or .root")
    if config.test_data is not None and config.data is None:
        what = "changes nothing without --data"
        raise ConfigError("--test-data", what, "give --data too")
    if config.data is None and config.training.batch_size > config.showers:
        what = f"is {config.training.batch_size}, but --showers only {config.showers}"
        raise ConfigError("--training.batch-size", what, f"give 1 to {config.showers}")
    if config.columns is not None:
        parse_columns(config.columns)
        if config.data is None or config.data.suffix != ".root":
            what = "names branches of a ROOT tree, which --data is not"
            raise ConfigError("--columns", what, "give --data a file that ends in .root")
    if config.export and config.family != "whitened":
        raise ConfigError("--export", "cannot write CaloGAN's network", "use --family whitened")
    if (config.binning is None) != (config.threshold is None):
        what = "goes with --binning, which says nothing of it"
        raise ConfigError("--threshold", what, "give both, in MeV: 1 in set 1, 0.01515 in 2 and 3")
    if config.threshold is not None and not 0 < config.threshold < 1e6:
        raise ConfigError("--threshold", f"is {config.threshold} MeV", "give one above 0")
    if config.detector == "pions_1" and config.data is None:
        raise ConfigError("--detector", "pions_1 needs showers of your own", "give --data too")
    if config.binning is not None and config.data is None:
        what = "has layers that our maker knows no depths of"
        raise ConfigError("--binning", what, "give --data too")
    for option in ("binning", "data", "test_data"):
        path = getattr(config, option)
        if path is not None and not path.is_file():
            name = f"--{option.replace('_', '-')}"
            raise ConfigError(name, f"{path} is not there, or no file", "check the path")


def parse_columns(text: str) -> dict[str, Any]:
    """Fields of `readers.HitColumns` from "incident_energy=E,cell=c,deposit=d,incident_unit=GeV".

    Units are MeV where none is named.

    Raises:
        ConfigError: a part that is not such a field, one given twice, or one missing.
    """
    remedy = 'write "incident_energy=E,cell=c,deposit=d", with incident_unit=GeV, deposit_unit=GeV'
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        unit = name in ("incident_unit", "deposit_unit")
        if name in found or not value or not (unit or name in HITS):
            raise ConfigError("--columns", f"cannot take {part!r}", remedy)
        if unit and value not in UNITS:
            raise ConfigError("--columns", f"{value!r} is no unit", "give MeV or GeV")
        found[name] = UNITS[value] if unit else value
    missing = [name for name in HITS if name not in found]
    if missing:
        raise ConfigError("--columns", f"lack {', '.join(missing)}", remedy)
    return found


PRESETS: Mapping[str, Config] = {
    "smoke": Config(
        showers=3_000, validation=1_500, test=3_000, widths=(64,), critic_widths=(96, 96),
        training=Adversarial(steps=200, batch_size=128, evaluate_every=100),
    ),
    "default": Config(),
    "paper": Config(
        showers=1_000_000, validation=30_000, test=121_000, widths=(256, 256, 256),
        critic_widths=(512, 512, 512),
        training=Adversarial(
            steps=1_000_000, batch_size=1024, critic_steps=2, critic_rate=1e-3,
            generator_rate=5e-4, evaluate_every=10_000,
        ),
    ),
    "pretrained": Config(
        showers=240_000, validation=15_000, test=121_000,
        training=Adversarial(steps=40_000, evaluate_every=2_000),
    ),
    "calogan": Config(
        # Rates, batch and 50 epochs as in the program of arXiv 1712.10321.
        detector="calogan", family="calogan", showers=100_000,
        training=Adversarial(
            steps=19_500, critic_rate=2e-5, generator_rate=2e-4, memory=0.999, evaluate_every=390
        ),
    ),
}  # fmt: skip
