"""Train a generator of showers against critics, and judge it as the CaloChallenge does."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import physml
from physml import export
from physml.calorimeter import calogan, exports, generator, metrics, pretrained, writers
from physml.calorimeter import objective as whitened
from physml.calorimeter.classifier import needed
from physml.calorimeter.events import Showers
from physml.calorimeter.objective import Sample
from physml.claims import Claim
from physml.errors import ConfigError, TrainingError
from physml.options import as_fitted
from physml.run import Experiment, Results
from physml.train import Objective, Splits, TrainState

from . import dataset
from .comparison import compare
from .config import PRESETS, Config, check
from .figures import figures

FAMILIES: Mapping[str, Any] = {"whitened": whitened, "calogan": calogan}
SPEED_BATCHES = (1, 100, 10_000)
FLOOR = 0.2  # FPD x 1000 of two draws of the truth: what is below is noise
MOST_BYTES = 8 << 30  # of showers that `sample` writes
MOST_VOXELS = 40_000_000  # in a batch that is timed
EXACT = 1e-5  # largest difference of an exported network


def load(config: Config) -> Splits:
    """Showers of train and validation; see `dataset.load`."""
    return dataset.load(config)


def networks(config: Config) -> Any:
    """The players that the options name."""
    geometry = dataset.geometry(config)
    if config.family == "calogan":
        return calogan.networks(geometry)
    return whitened.networks(geometry, config.widths, config.critic_widths)


def objective(config: Config) -> Objective:
    """The adversarial game."""
    check(config)
    return FAMILIES[config.family].objective(
        networks(config), dataset.geometry(config), config.training
    )


def sampler(config: Config, block: int = generator.BLOCK) -> Sample:
    """What makes showers from the params of a fit, `block` at a time."""
    family = FAMILIES[config.family]
    made: Sample = family.sampler(networks(config).generator, dataset.geometry(config), block)
    return made


def evaluate(config: Config, state: TrainState, splits: Splits) -> Results:
    """The generator beside test showers: the judge's scorecard, and all that is drawn."""
    geometry, make = dataset.geometry(config), sampler(config)
    truth = dataset.showers(config, "test")
    energies = truth.incident_energy
    made = make(state.params, energies, (config.seed, 1))
    settings = judge(config, len(energies))
    card = metrics.scorecard(truth, made, geometry, settings)
    train = splits["train"]
    known = Showers(train["energy"].astype(np.float64), train["deposits"])
    numbers, arrays = compare(truth, made, geometry, known)
    arrays |= speed(config, state)
    numbers = {**numbers, **{f"judge {name}": value for name, value in card.items()}}
    first = objective(config).init(jax.random.PRNGKey(config.seed), train)
    begun = make(first.params, energies, (config.seed, 1))
    before = metrics.scorecard(truth, begun, geometry, settings._replace(auc=None))["fpd_e3"]
    numbers["judge fpd_e3 at step 0"] = before
    numbers["fpd at step 0 / fpd"] = before / max(card["fpd_e3"], FLOOR)
    note = comparable(config, card["full_size"] > 0)
    arrays["scorecard note"] = np.array(note)
    if config.detector == "photons_1" and config.binning is None:
        print("\n".join(metrics.table(card, "this generator", note)), file=sys.stderr)
    files: dict[str, bytes] = {}
    if config.export:
        files, differences = exported(config, state, energies)
        numbers |= differences
    return {"numbers": numbers, "arrays": arrays, "files": files}


def exported(
    config: Config, state: TrainState, energies: np.ndarray
) -> tuple[dict[str, bytes], dict[str, float]]:
    """The generator as ONNX and StableHLO, and how far their showers are from ours.

    Over 500 showers; those in which rounding took a voxel across the threshold are counted apart.
    `check` refuses CaloGAN's network, whose convolutions have no form in ONNX here.
    """
    grid = generator.grid(dataset.geometry(config))
    largest = float(np.exp(state.params["scale"].span[1]))
    players = state.params["average"], state.params["scale"]
    function = exports.single_input(networks(config).generator, *players, grid, largest)
    inputs = exports.inputs(grid)
    files = {
        "generator.onnx": export.onnx(function, inputs, "showers"),
        "generator.stablehlo": export.stablehlo(function, inputs),
    }
    draw = np.random.default_rng(0)
    energy = draw.choice(energies, 500)[:, None] / largest
    normal = draw.standard_normal((500, exports.latent_size(grid)))
    values = {"x": np.concatenate([normal, energy], axis=1).astype(np.float32)}
    ours = np.asarray(jax.jit(function)(values["x"]))
    found = {
        "ONNX": export.run_onnx(files["generator.onnx"], values),
        "StableHLO": export.run_stablehlo(files["generator.stablehlo"], values),
    }
    numbers = {"largest energy of the exported network (MeV)": largest}
    for name, theirs in found.items():
        across = ((theirs > 0) != (ours > 0)).any(axis=1)
        apart = np.abs(theirs - ours).max(axis=1) / np.maximum(ours.max(axis=1), 1e-30)
        worst = float(apart[~across].max())
        if not worst <= EXACT:
            what = f"gives showers that differ by {worst:.1e} of their largest deposit"
            raise TrainingError(name, what, "export on another machine, and report this")
        numbers[f"{name}: largest difference over largest deposit"] = worst
        numbers[f"{name}: showers of 500 with a voxel across the threshold"] = float(across.sum())
    return files, numbers


def comparable(config: Config, full_size: bool) -> str:
    """What stands beside a scorecard: whether published values can be compared with it."""
    if config.data is None:
        return metrics.NOT_COMPARABLE
    return "own data, the challenge's judge" if full_size else "reduced judge: not comparable"


def judge(config: Config, size: int) -> metrics.Settings:
    """Sizes of the judge: the challenge's for a full sample, smaller ones in proportion."""
    protocol: Any = metrics.CHALLENGE if config.judge == "challenge" else metrics.REDUCED
    if size < needed(protocol):
        print(f"no classifiers: {size} test showers, {needed(protocol)} needed", file=sys.stderr)
        protocol = None
    full = metrics.Settings(auc=protocol)
    if size >= metrics.FULL_ROWS:
        return full
    part = size / metrics.FULL_ROWS
    return full._replace(
        sizes=(max(int(full.sizes[0] * part), 50), max(int(full.sizes[1] * part), 100)),
        kernel_rows=max(int(full.kernel_rows * part), 50),
    )


def speed(config: Config, state: TrainState) -> dict[str, np.ndarray]:
    """Time per shower (ms) against the size of the batch, on this machine's first device."""
    times = []
    most = min(config.test, MOST_VOXELS // dataset.geometry(config).size)
    batches = [batch for batch in SPEED_BATCHES if batch <= most]
    for batch in batches:
        own = sampler(config, batch)
        energies = np.full(batch, 10e3)
        own(state.params, energies, (0,))
        begun, rounds = time.perf_counter(), max(1, 20 // batch)
        for _ in range(rounds):
            own(state.params, energies, (1,))
        times.append(1e3 * (time.perf_counter() - begun) / (rounds * batch))
    return {"speed batch": np.array(batches), "speed ms": np.array(times)}


def sample(config: Config, state: TrainState, folder: Path) -> None:
    """Write showers: at the energies asked for, or those of the test showers.

    Raises:
        ConfigError: more than `MOST_BYTES`.
    """
    geometry = dataset.geometry(config)
    if config.energies:
        energies = np.repeat(np.array(config.energies), config.count)
    elif config.data is not None:
        energies = dataset.showers(config, "test").incident_energy
    else:
        energies = dataset.incident_energies(config, "test", config.test)
    if 4 * geometry.size * len(energies) > MOST_BYTES:
        what = f"asks for {4 * geometry.size * len(energies) / 1e9:.3g} GB of showers"
        raise ConfigError("--count", what, "take fewer, and other --draw for more files")
    low, high = np.exp(np.asarray(state.params["scale"].span, np.float64))
    beyond = (energies < low * (1 - 1e-6)) | (energies > high * (1 + 1e-6))
    if beyond.any():
        text = f"{beyond.sum()} of {len(energies)} energies are outside the trained"
        print(f"warning: {text} {low:g} to {high:g} MeV", file=sys.stderr)
    made = sampler(config)(state.params, energies, (config.draw, 2))
    path = config.out or folder / "showers.hdf5"
    about: Mapping[str, Any] = {
        "source": "physml calo_gan, generated by a network",
        "trained_from_mev": low, "trained_to_mev": high,
        "outside_trained_energies": int(beyond.sum()), "draw": config.draw,
    }  # fmt: skip
    if path.suffix == ".root":
        branch = {"outside_trained_energies": beyond}
        writers.write_cells(path, made, geometry, more=branch)
    else:
        writers.write_challenge(path, made, geometry, about)
    print(f"{len(energies)} showers in {path}", file=sys.stderr)


def pack(config: Config, state: TrainState, folder: Path) -> None:
    """Write the generator as one file, with the options, seed and data that made it.

    Raises:
        ConfigError: the networks are CaloGAN's, or those that come with the project.
    """
    if not state.opt_state:
        raise ConfigError("pack", "found no fit of your own", "train first")
    if config.out is not None and config.out.suffix == ".root":
        raise ConfigError("--out", f"is {config.out}", "give a name that ends in .hdf5")
    if config.family != "whitened":
        raise ConfigError("pack", "knows no CaloGAN networks", "use --family whitened")
    total = hashlib.sha256()
    for array in dataset.showers(config, "train"):
        total.update(np.ascontiguousarray(array).tobytes())
    about = {
        "config": repr(as_fitted(config)), "seed": config.seed, "best_step": int(state.step),
        "data_sha256": total.hexdigest(), "physml": physml.__version__, "jax": jax.__version__,
    }  # fmt: skip
    path = config.out or folder / "generator.hdf5"
    pretrained.write(path, state.params, about)
    print(f"generator in {path}", file=sys.stderr)


def shipped(config: Config) -> TrainState:
    """The generator that comes with the project."""
    return TrainState(pretrained.read(Path(__file__).with_name("pretrained.hdf5")))


OWN = "own maker: not comparable with arXiv 2410.21611"
FIRST = "judge fpd_e3 at step 0"
RESPONSE = "worst relative deviation of the mean of E_tot/E_inc at any energy"
SHARES = "worst relative deviation of the mean share, layers over 1 %"
COPIES = "share of generated showers nearer to a training shower than 1 % of truth"
SMOKE = (Claim("judge fpd_e3", "", -1.0, 100.0, source=OWN, baseline=FIRST),)
DEFAULT = (
    Claim("fpd at step 0 / fpd", "", 10.0, 1e6, source=OWN),
    Claim("judge fpd_e3", "", -1.0, 20.5, source=OWN, baseline=FIRST),
    Claim(RESPONSE, "", 0.0, 0.02, source=OWN),
    Claim(SHARES, "", 0.0, 0.10, source=OWN),
    Claim(COPIES, "", 0.0, 0.03, source=OWN),
)
# Below what every published GAN reached on showers of Geant4; the classifiers are smaller than the
# challenge's, so that their areas are smaller too.
PRETRAINED = (
    *DEFAULT,
    Claim("judge kpd_e3", "", -1.0, 1.15, source=OWN),
    Claim("judge auc_high", "", 0.4, 0.942, source=f"{OWN}; reduced classifier"),
    Claim("judge auc_low", "", 0.4, 0.927, source=f"{OWN}; reduced classifier"),
    Claim("judge sep_width_eta_e3", "", 0.0, 12.0, source=OWN),
    Claim("judge sep_width_phi_e3", "", 0.0, 12.0, source=OWN),
    Claim("judge sep_width_r_e3", "", 0.0, 12.0, source=OWN),
    Claim("judge sep_sparsity_e3", "", 0.0, 12.0, source=OWN),
)
EXPERIMENT = Experiment(
    name="calo_gan",
    presets=PRESETS,
    load=load,
    objective=objective,
    evaluate=evaluate,
    figures=figures,
    claims={
        "smoke": SMOKE,
        "default": DEFAULT,
        "pretrained": PRETRAINED,
        # Never run here: they need a GPU. To be as good as the shipped weights, or to train at all.
        "paper": PRETRAINED,
        "calogan": (Claim(RESPONSE, "", 0.0, 0.1, source=OWN),),
    },
    commands={"sample": sample, "pack": pack},
    weights={"pretrained": shipped},
)
