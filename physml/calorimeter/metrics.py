"""The judge: how generated showers differ from real ones, as the CaloChallenge measures it.

Definitions: arXiv 2410.21611 and the challenge's program (github CaloChallenge/homepage, code/
evaluate.py and evaluate_plotting_helper.py). All values are in units of 1; names that end in `_e3`
hold a thousand times that, as the published tables do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from physml.calorimeter import events
from physml.calorimeter.classifier import (
    CHALLENGE,
    REDUCED,
    Protocol,
    check_energies,
    classifier_auc,
    voxels,
)
from physml.calorimeter.distances import (
    SIZES,
    frechet_distance,
    kernel_distance,
    precision_recall_density_coverage,
)
from physml.calorimeter.events import Showers
from physml.calorimeter.features import Features, features, matrix, voxel_spectrum
from physml.calorimeter.geometry import NO_THRESHOLD, Geometry
from physml.errors import ConfigError, DataError

__all__ = [
    "CHALLENGE", "REDUCED", "Protocol", "Settings", "classifier_auc", "correlation_distance",
    "correlations", "frechet_distance", "kernel_distance", "precision_recall_density_coverage",
    "published", "scorecard", "separation_power", "separation_powers", "table",
]  # fmt: skip

NOT_COMPARABLE = "own maker: not comparable"
FIRST_ENERGY = {"photon": 10.0, "pion": 10.0}
"""MeV, first edge of the energy spectra in set 1; elsewhere it is the threshold of a voxel."""
KERNEL_ROWS = 5_000
FULL_ROWS = 100_000  # of each sample: in sets 2 and 3; set 1 has 121,000 photons, 120,800 pions


class Settings(NamedTuple):
    """Sizes of the judge. Others than these are not comparable with published values."""

    sizes: tuple[int, int] = SIZES  # batches of the Fréchet distance
    kernel_rows: int = KERNEL_ROWS  # a batch of the kernel distance
    neighbour_rows: int = 20_000  # drawn for precision and recall, if there are as many
    auc: Protocol | None = None  # of the classifiers; None: leave them out
    low_level: bool = True  # with a classifier on voxels as well


def separation_power(a: np.ndarray, b: np.ndarray, edges: np.ndarray) -> float:
    """Sum of (p - q)² / (p + q) over the bins, halved: 0 for equal shapes, 1 without overlap.

    p and q are the shares of the values between the first and last edge; what lies outside them is
    left out, as in the challenge (eq. 15 of arXiv 2009.03796). Two samples that both have nothing
    there give 0, one alone gives 1.

    Args:
        a, b: values; any shapes.
        edges: (k + 1,) rising; the last bin holds its upper edge.

    Raises:
        DataError: values that are not finite.
        ConfigError: edges that do not rise.
    """
    edges = np.asarray(edges, np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ConfigError("edges", "do not rise", "give two or more that do")
    counts = []
    for values in (a, b):
        values = np.asarray(values, np.float64)
        if not np.isfinite(values).all():
            raise DataError("separation power", "has values not finite", "look at the showers")
        counts.append(np.histogram(values, edges)[0])
    return _triangular(*counts)


def _triangular(a: Int64[np.ndarray, "k"], b: Int64[np.ndarray, "k"]) -> float:
    if not a.any() or not b.any():
        return float(a.any() != b.any())
    p, q = a / a.sum(), b / b.sum()
    both = p + q
    return float(0.5 * np.divide((p - q) ** 2, both, out=np.zeros(len(p)), where=both > 0).sum())


def separation_powers(
    reference: Showers, generated: Showers, geometry: Geometry
) -> dict[str, Float64[np.ndarray, "layers"]]:
    """Separation powers of all features, by the names of `features.features` and "cell".

    One value per layer (those with sectors for eta and phi), one alone for `e_ratio` and `cell`,
    the spectrum of all voxels. Binnings of the challenge: 39 of layer energies and 49 of voxels,
    even in the logarithm, from 10 MeV in set 1 and the voxel threshold elsewhere to the largest of
    the reference; 100 of E_tot/E_inc in 0.5 to 1.5; 100 of centres within 30 mm (sets 2, 3),
    500 mm (layers over 600 mm wide) or 100 mm of the axis, of widths to 30, 400 or 100 mm. Those
    of r (from 0 to the same limits) and of the sparsity (19 in 0 to 1) could not be checked
    against the challenge's last program. "outside" is the largest difference of the shares that
    the edges leave out.

    Raises:
        DataError: showers that do not fit the geometry, see `events.check` and `features.features`.
    """
    found = _checked_features(reference, generated, geometry)
    return _separations(*found, reference, generated, geometry)


def _checked_features(
    reference: Showers, generated: Showers, geometry: Geometry
) -> tuple[Features, Features]:
    for name, showers in (("reference", reference), ("generated", generated)):
        events.check(showers, f"{name} showers")
        if not len(showers.incident_energy):
            raise DataError(f"{name} showers", "are none", "give some")
    return features(reference, geometry), features(generated, geometry)


def _separations(
    a: Features, b: Features, reference: Showers, generated: Showers, geometry: Geometry
) -> dict[str, Float64[np.ndarray, "layers"]]:
    powers: dict[str, list[float]] = {}
    outside = 0.0
    for name, layer, edges in _binnings(a, geometry):
        values = [x[name] if layer is None else x[name][:, layer] for x in (a, b)]
        counts = [np.histogram(x, edges)[0] for x in values]
        powers.setdefault(name, []).append(_triangular(counts[0], counts[1]))
        shares = [count.sum() / len(x) for count, x in zip(counts, values, strict=True)]
        outside = max(outside, abs(shares[0] - shares[1]))
    edges = _energy_edges(float(reference.deposits.max()), 50, geometry)
    cells = [voxel_spectrum(showers, edges) for showers in (reference, generated)]
    powers["cell"] = [_triangular(cells[0], cells[1])]
    sizes = reference.deposits.size, generated.deposits.size
    shares = [count.sum() / size for count, size in zip(cells, sizes, strict=True)]
    powers["outside"] = [max(outside, abs(shares[0] - shares[1]))]
    return {name: np.array(values) for name, values in powers.items()}


def _binnings(
    reference: Features, geometry: Geometry
) -> list[tuple[str, int | None, Float64[np.ndarray, "edges"]]]:
    """Name, column and edges of every histogram."""
    found: list[tuple[str, int | None, np.ndarray]] = [
        ("e_ratio", None, np.linspace(0.5, 1.5, 101))
    ]
    sectors = [layer for layer in geometry.layers if layer.n_alpha > 1]
    for k in range(len(geometry.layers)):
        largest = float(reference["e_layer"][:, k].max())
        found.append(("e_layer", k, _energy_edges(largest, 40, geometry)))
        found.append(("sparsity", k, np.linspace(0.0, 1.0, 20)))
    for axis, layers in (("eta", sectors), ("phi", sectors), ("r", geometry.layers)):
        for k, layer in enumerate(layers):
            centre, width = _limits(max(abs(layer.fast[0]), abs(layer.fast[-1])))
            low = 0.0 if axis == "r" else -centre
            found.append((f"centre_{axis}", k, np.linspace(low, centre, 101)))
            found.append((f"width_{axis}", k, np.linspace(0.0, width, 101)))
    return found


def _limits(extent: float) -> tuple[float, float]:
    """Largest centre and width in the histograms of a layer that reaches so far, mm."""
    if extent < 50:
        return 30.0, 30.0
    return (500.0, 400.0) if extent > 600 else (100.0, 100.0)


def _energy_edges(largest: float, points: int, geometry: Geometry) -> Float64[np.ndarray, "points"]:
    least = FIRST_ENERGY.get(geometry.particle, geometry.threshold or NO_THRESHOLD)
    # A layer whose energies all lie below the first edge still needs edges: nothing is in them.
    return np.geomspace(least, max(largest, 2 * least), points)


def correlations(found: Features) -> Float64[np.ndarray, "l l"]:
    """Pearson's correlation of the layer energies; 0 beside a layer whose energy never changes."""
    x = found["e_layer"] - found["e_layer"].mean(axis=0)
    spread = np.sqrt((x**2).sum(axis=0))
    x = x / np.where(spread > 0, spread, 1.0)
    pearson: np.ndarray = np.clip(x.T @ x, -1.0, 1.0)
    np.fill_diagonal(pearson, 1.0)
    return pearson


def correlation_distance(reference: Features, generated: Features) -> float:
    """Mean absolute difference of the correlations over all pairs of layers; 0 with one layer.

    Raises:
        DataError: unlike numbers of layers.
    """
    a, b = correlations(reference), correlations(generated)
    if a.shape != b.shape:
        raise DataError("correlations", f"are of {len(a)} and {len(b)} layers", "use one geometry")
    pairs = np.triu_indices(len(a), 1)
    return float(np.abs(a - b)[pairs].mean()) if len(pairs[0]) else 0.0


def scorecard(
    reference: Showers,
    generated: Showers,
    geometry: Geometry,
    settings: Settings = Settings(),  # noqa: B008 (it cannot change)
    seed: int = 42,
) -> dict[str, float]:
    """Every number of the judge, by name, for showers at the same incident energies.

    `rows_reference`, `rows_generated`; `fpd_e3`, `kpd_e3` with `_error`; `precision`, `recall`,
    `density`, `coverage`; `sep_*_e3`, the means over layers of `separation_powers`, and `outside`;
    `correlation_distance`; with `settings.auc` also `auc_high`, `auc_low` with `_error`; and
    `full_size`: 1 with the settings of published values and `FULL_ROWS` of both, else 0.

    Args:
        reference: real showers.
        generated: to be judged.
        geometry: of both.
        settings: see `Settings`.
        seed: of all that is drawn.

    Raises:
        DataError: showers of other geometries, not finite, at other energies, or fewer than a
            metric needs; the message says how many.
    """
    found = _checked_features(reference, generated, geometry)
    check_energies(reference.incident_energy, generated.incident_energy)
    rows = matrix(found[0]), matrix(found[1])
    needed = max(settings.sizes[1], settings.kernel_rows)
    if min(len(x) for x in rows) < needed:
        what = f"needs {needed} rows of each sample, has {len(rows[0])} and {len(rows[1])}"
        remedy = "give more showers, or Settings(sizes=..., kernel_rows=...) of fewer rows"
        raise DataError("scorecard", what, f"{remedy} (then not comparable)")
    fpd = frechet_distance(*rows, sizes=settings.sizes, seed=seed)
    kpd = kernel_distance(*rows, size=settings.kernel_rows, seed=seed)
    drawn = [_drawn(x, settings.neighbour_rows, (seed, k)) for k, x in enumerate(rows)]
    overlap = precision_recall_density_coverage(drawn[0], drawn[1])
    powers = _separations(*found, reference, generated, geometry)
    card = {"rows_reference": float(len(rows[0])), "rows_generated": float(len(rows[1]))}
    card |= {"fpd_e3": 1e3 * fpd.value, "fpd_e3_error": 1e3 * fpd.error}
    card |= {"kpd_e3": 1e3 * kpd.value, "kpd_e3_error": 1e3 * kpd.error}
    card |= overlap._asdict()
    card |= {f"sep_{k}_e3": 1e3 * float(v.mean()) for k, v in powers.items() if k != "outside"}
    card |= {"outside": float(powers["outside"][0])}
    card |= {"correlation_distance": correlation_distance(*found)}
    if settings.auc is not None:
        card |= _areas(rows, reference, generated, settings, seed)
    full = Settings(auc=CHALLENGE if settings.auc else None, low_level=settings.low_level)
    enough = min(len(rows[0]), len(rows[1])) >= FULL_ROWS
    return card | {"full_size": float(settings == full and enough)}


def _drawn(x: np.ndarray, rows: int, seed: tuple[int, int]) -> np.ndarray:
    """Some rows, never the first ones: files stand in the order of the energies."""
    if rows < 1:
        raise ConfigError("neighbour rows", f"are {rows}", "give 1 or more")
    if rows >= len(x):
        return x
    return np.asarray(np.random.default_rng(seed).choice(x, rows, replace=False))


def _areas(
    high: tuple[np.ndarray, np.ndarray],
    reference: Showers,
    generated: Showers,
    settings: Settings,
    seed: int,
) -> dict[str, float]:
    assert settings.auc is not None
    area = classifier_auc(high[0], high[1], seed, settings.auc)
    found = {"auc_high": area.value, "auc_high_error": area.error}
    if settings.low_level:
        area = classifier_auc(voxels(reference), voxels(generated), seed, settings.auc)
        found |= {"auc_low": area.value, "auc_low_error": area.error}
    return found


def published() -> dict[str, dict[str, float]]:
    """Results of the challenge's GANs on the photons of set 1, by the names of `scorecard`.

    arXiv 2410.21611, from the files behind its figures (github CaloChallenge/homepage,
    final_results); "GEANT4" is the floor, one file of real showers judged against the other.
    Separation powers are means over the layers.
    """
    names = (
        "auc_low", "auc_high", "fpd_e3", "kpd_e3", "precision", "recall", "density", "coverage",
        "sep_width_eta_e3", "sep_width_phi_e3", "sep_width_r_e3", "sep_sparsity_e3",
    )  # fmt: skip
    return {model: dict(zip(names, values, strict=True)) for model, values in _PUBLISHED.items()}


def table(card: dict[str, float], ours: str, note: str = NOT_COMPARABLE) -> list[str]:
    """Lines of a scorecard beside the published GANs, for showers in the form of set 1 photons.

    Args:
        card: see `scorecard`; what it lacks is left blank.
        ours: name of its column.
        note: beside it: what keeps it from being compared.
    """
    columns = {f"{ours} ({note})": card, **published()}
    lines = ["photons of set 1, arXiv 2410.21611", f"{'':20}" + "  ".join(columns)]
    for name in published()["GEANT4"]:
        cells = (
            f"{values[name]:>{len(head)}.4g}" if name in values else " " * len(head)
            for head, values in columns.items()
        )
        lines.append(f"{name:20}" + "  ".join(cells))
    return lines


_PUBLISHED = {
    "GEANT4": (
        0.4992, 0.4995, 0.1192, 0.0279, 0.7041, 0.6992, 0.9917, 0.9637, 0.404, 0.386, 0.158, 0.0377,
    ),
    "BoloGAN": (
        0.9265, 0.9662, 142.4, 11.63, 0.2068, 0.1939, 0.3146, 0.4114, 62.1, 73.4, 73.0, 55.3,
    ),
    "CaloShower2GAN": (
        0.9383, 0.9425, 52.1, 2.803, 0.7609, 0.0355, 72.67, 0.8317, 20.6, 19.9, 11.7, 16.1,
    ),
    "CaloShower3GAN": (
        0.9281, 0.9466, 20.52, 1.156, 0.7335, 0.03867, 65.73, 0.7954, 26.2, 26.1, 11.6, 25.9,
    ),
}  # fmt: skip
