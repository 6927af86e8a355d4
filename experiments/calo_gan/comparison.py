"""Truth beside generated showers: numbers of an evaluation, small arrays for its figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from physml.calorimeter import events
from physml.calorimeter import geometry as geometries
from physml.calorimeter.classifier import check_energies
from physml.calorimeter.events import Showers
from physml.calorimeter.features import Features, features, voxel_spectrum
from physml.calorimeter.geometry import NO_THRESHOLD, Geometry
from physml.calorimeter.metrics import correlations
from physml.calorimeter.panels import binned
from physml.errors import DataError

MOST_LAYERS = 7  # shown one by one; of more, those of `DEPTHS`
DEPTHS = (0.02, 0.2, 0.4, 0.6, 0.8, 0.98)  # share of the mean energy that lies before a shown layer
MOST_ENERGIES = 30  # unlike incident energies that count as discrete
RANGES = 10  # of continuous ones, with as many showers each
FEWEST = 25  # showers at one energy, for a mean and a resolution of its own
PER_BIN = 8  # showers of the truth in a bin, on average: ratios of fewer say nothing
SHOWN_ENERGIES = 4  # of the mean showers by energy
BATCHES = 20  # of showers, whose scatter gives the error of the voxel spectrum
SHARE = 0.01  # of the energy: layers below it are left out of the worst relative deviation
DRAWN = 1000  # showers of each sample whose nearest neighbours are looked for
LEAST_WIDTH = 0.5  # of ln(1 + e/t): voxels hit once in a thousand showers do not rule a distance
BLOCK = 1024  # training showers at a time

Arrays = dict[str, np.ndarray]
Numbers = dict[str, float]
Pair = tuple[Features, Features]


def compare(
    truth: Showers, generated: Showers, geometry: Geometry, train: Showers | None = None
) -> tuple[Numbers, Arrays]:
    """Compare showers with generated ones at the same incident energies.

    The arrays are what `figures.figures` draws: histograms, means and features of a sample, never
    whole showers; a few MB for any number of showers. The numbers are finite; those "generated over
    truth" are 1 for equal samples.

    Args:
        truth: that the generator has not seen.
        generated: as many at each energy.
        geometry: of both.
        train: what the generator was trained on; None leaves out the search for its copies.

    Raises:
        DataError: no showers, of another geometry, not finite or at other energies; see
            `energy_groups`.
    """
    for name, showers in (("truth", truth), ("generated", generated)):
        events.check(showers, name)
        if not len(showers.incident_energy):
            raise DataError(name, "holds no showers", "give two or more at each energy")
    check_energies(truth.incident_energy, generated.incident_energy)
    found = features(truth, geometry), features(generated, geometry)
    shown = _shown_layers(found[0]["e_layer"])
    arrays = {"showers": np.array([len(truth.deposits), len(generated.deposits)])}
    arrays |= _voxels_of(geometry, shown)
    numbers, responses = _responses(found)
    arrays |= responses | _mean_showers(truth, generated) | _spectra(truth, generated, geometry)
    arrays |= _feature_histograms(found, geometry, shown)
    for part in (
        _layer_shares(found, geometry, shown),
        _sparsities(found, geometry, shown),
        _correlations(found, geometry),
        _neighbours(truth, generated, train, geometry) if train is not None else ({}, {}),
    ):
        numbers |= part[0]
        arrays |= part[1]
    return numbers, arrays


def energy_label(energy: float) -> str:
    """An energy in MeV, as one reads it: 256 MeV, 4.1 GeV, 2.1 TeV."""
    for unit, size in (("TeV", 1e6), ("GeV", 1e3)):
        if energy >= 0.9995 * size:
            return f"{energy / size:.3g} {unit}"
    return f"{energy:.3g} MeV"


def range_label(low: float, high: float) -> str:
    """Energies in MeV from the lowest to the highest: 256 MeV, 256 to 512 MeV."""
    first, last = energy_label(low), energy_label(high)
    if first == last:
        return first
    same = first.split()[1] == last.split()[1]
    return f"{first.split()[0] if same else first} to {last}"


def _ranges(
    energy: Float64[np.ndarray, "n"], place: Int64[np.ndarray, "n"]
) -> Float64[np.ndarray, "g 2"]:
    """Lowest and highest energy of each group."""
    parts = [energy[place == k] for k in range(place.max() + 1)]
    return np.array([[part.min(), part.max()] for part in parts])


def energy_groups(
    truth: Float64[np.ndarray, "n"], generated: Float64[np.ndarray, "m"]
) -> tuple[Float64[np.ndarray, "g"], Int64[np.ndarray, "n"], Int64[np.ndarray, "m"]]:
    """Incident energies (MeV) that stand for a group of showers each, and who is in which group.

    Discrete energies are groups of their own if they hold `FEWEST` showers of the truth, else
    neighbours join; continuous ones make `RANGES` groups of as many showers, named by their
    geometric means.

    Raises:
        DataError: fewer than two showers in a group.
    """
    values, counts = np.unique(truth, return_counts=True)
    least = FEWEST if len(values) <= MOST_ENERGIES else max(len(truth) / RANGES, FEWEST)
    edges, held, left = [], 0, len(truth)
    for k, count in enumerate(counts[:-1]):
        held, left = held + count, left - count
        if held >= least and left >= least:
            edges.append(np.sqrt(values[k] * values[k + 1]))
            held = 0
    places = np.searchsorted(edges, truth), np.searchsorted(edges, generated)
    for name, place in zip(("truth", "generated"), places, strict=True):
        counts = np.bincount(place, minlength=len(edges) + 1)
        if counts.min() < 2:
            what = f"holds {counts.min()} showers in a range of energy"
            raise DataError(name, what, "give two or more in each")
    groups = range(len(edges) + 1)
    return np.exp([np.log(truth[places[0] == k]).mean() for k in groups]), *places


def _shown_layers(energy: Float64[np.ndarray, "n layers"]) -> list[int]:
    """All layers that hold energy, or about six spread over it where there are many."""
    mean = energy.mean(axis=0)
    used: list[int] = np.flatnonzero(mean > 0).tolist()
    if len(used) <= MOST_LAYERS:
        return used
    places = np.searchsorted(np.cumsum(mean) / mean.sum(), DEPTHS)
    return sorted({int(place) for place in places})


def _voxels_of(geometry: Geometry, shown: list[int]) -> Arrays:
    """What the figures need of the geometry."""
    layers = [geometry.layers[k] for k in shown]
    arrays: Arrays = {
        "layer id": np.array([layer.id for layer in geometry.layers]),
        "layer shown": np.array(shown),
        "layer polar": np.array([layer.polar for layer in layers]),
        "layer voxels": np.array([[s.start, s.stop] for s in geometries.slices(geometry)]),
    }
    for layer in layers:
        arrays |= {f"slow {layer.id}": layer.slow, f"fast {layer.id}": layer.fast}
    return arrays


def _responses(found: Pair) -> tuple[Numbers, Arrays]:
    """E_tot / E_inc: histograms, mean and resolution at each energy."""
    energy, *places = energy_groups(found[0]["e_inc"], found[1]["e_inc"])
    ratios = [x["e_ratio"] for x in found]
    low, high = np.quantile(ratios[0], [0.001, 0.999])
    ranges = _ranges(found[0]["e_inc"], places[0])
    arrays: Arrays = {"energy": energy, "energy range": ranges}
    arrays["response"] = binned(ratios, _even(low, high, _bins(len(ratios[0]), 60))).packed()
    moments = np.zeros((2, 4, len(energy)))  # sample; mean, its error, resolution, its error
    for k in range(len(energy)):
        parts = [x[place == k] for x, place in zip(ratios, places, strict=True)]
        for j, part in enumerate(parts):
            mean, width = part.mean(), part.std(ddof=1)
            sharp = width / mean if mean > 0 else 0.0
            error = width / np.sqrt(len(part)), sharp / np.sqrt(2 * len(part) - 2)
            moments[j, :, k] = mean, error[0], sharp, error[1]
        width = max(moments[0, 2, k] * moments[0, 0, k], 1e-6)
        middle = moments[0, 0, k]
        bins = _bins(len(parts[0]), 20)
        far = (4.0 if bins == 20 else 2.5) * width  # tails of few showers would be empty
        edges = _even(max(middle - far, 0.0), middle + far, bins)
        arrays[f"response {k}"] = binned(parts, edges).packed()
    arrays |= {"response truth": moments[0], "response generated": moments[1]}
    over = {
        what: moments[1, j] / np.maximum(moments[0, j], 1e-9)
        for j, what in ((0, "mean"), (2, "resolution"))
    }
    numbers = {
        f"{what} of E_tot/E_inc at {range_label(*ranges[k])}, generated over truth": float(ratio)
        for what, each in over.items()
        for k, ratio in enumerate(each)
    }
    for what, each in over.items():
        worst = float(np.abs(each - 1).max())
        numbers[f"worst relative deviation of the {what} of E_tot/E_inc at any energy"] = worst
    return numbers, arrays


def _layer_shares(found: Pair, geometry: Geometry, shown: list[int]) -> tuple[Numbers, Arrays]:
    """Mean shares of E_tot that the layers hold, with errors, and ratios of their means and rms."""
    shares = [x["e_layer"] / np.maximum(x["e_tot"], 1e-9)[:, None] for x in found]
    mean = [x.mean(axis=0) for x in shares]
    rms = [x.std(axis=0) for x in shares]
    errors = [width / np.sqrt(len(x)) for width, x in zip(rms, shares, strict=True)]
    large = mean[0] > SHARE
    arrays = {
        f"share {name}": np.stack([mean[j], errors[j]]).astype(np.float32)
        for j, name in enumerate(("truth", "generated"))
    }
    numbers: Numbers = {}
    for what, (a, b) in (("mean", mean), ("rms", rms)):
        ratio = b / np.maximum(a, 1e-9)
        for k in shown:
            name = f"{what} energy share of layer {geometry.layers[k].id}, generated over truth"
            numbers[name] = float(ratio[k])
        name = f"worst relative deviation of the {what} share, layers over {100 * SHARE:g} %"
        numbers[name] = float(np.abs(ratio - 1)[large].max(initial=0.0))
    return numbers, arrays


def _sparsities(found: Pair, geometry: Geometry, shown: list[int]) -> tuple[Numbers, Arrays]:
    """Mean sparsities: layers one by one, and the largest difference of all."""
    mean = [x["sparsity"].mean(axis=0) for x in found]
    numbers = {
        f"mean sparsity of layer {geometry.layers[k].id}, {name}": float(values[k])
        for k in shown
        for name, values in zip(("truth", "generated"), mean, strict=True)
    }
    numbers["largest difference of a mean sparsity"] = float(np.abs(mean[0] - mean[1]).max())
    return numbers, {}


def _correlations(found: Pair, geometry: Geometry) -> tuple[Numbers, Arrays]:
    """Pearson's correlations of the layers' energies, plain and over the incident energy.

    The plain ones, those of the challenge, mostly say that all layers grow with the energy.
    """
    numbers: Numbers = {}
    arrays: Arrays = {}
    over = [{**x, "e_layer": x["e_layer"] / x["e_inc"][:, None]} for x in found]
    for what, (a, b) in (("energies", found), ("energies over E_inc", over)):
        pair = correlations(a), correlations(b)
        for name, matrix in zip(("truth", "generated"), pair, strict=True):
            arrays[f"correlation of {what} {name}"] = matrix.astype(np.float32)
        worst = float(np.abs(pair[0] - pair[1]).max())
        numbers[f"largest difference of a correlation of layer {what}"] = worst
    return numbers, arrays


def _mean_showers(truth: Showers, generated: Showers) -> Arrays:
    """Mean deposits with their errors, over all energies, and at a few."""
    energy, *places = energy_groups(truth.incident_energy, generated.incident_energy)
    some = np.unique(np.linspace(0, len(energy) - 1, SHOWN_ENERGIES).round().astype(int))
    ranges = _ranges(truth.incident_energy, places[0])
    arrays: Arrays = {"mean shower energy": energy[some], "mean shower energy range": ranges[some]}
    for name, showers, place in zip(
        ("truth", "generated"), (truth, generated), places, strict=True
    ):
        deposits, n = showers.deposits, len(showers.deposits)
        mean = deposits.mean(axis=0, dtype=np.float64)
        square = np.einsum("ij,ij->j", deposits, deposits, dtype=np.float64) / n
        error = np.sqrt(np.maximum(square - mean**2, 0.0) / n)
        arrays[f"mean shower {name}"] = np.stack([mean, error]).astype(np.float32)
        each = [deposits[place == k].mean(axis=0, dtype=np.float64) for k in some]
        arrays[f"mean shower at energies {name}"] = np.stack(each).astype(np.float32)
    return arrays


def _spectra(truth: Showers, generated: Showers, geometry: Geometry) -> Arrays:
    """Voxels per shower in bins of their energy, with errors from the scatter of batches."""
    least = geometry.threshold or NO_THRESHOLD
    edges = np.geomspace(least, max(float(truth.deposits.max()), 2 * least), 50)
    arrays: Arrays = {"spectrum edges": edges}
    for name, showers in (("truth", truth), ("generated", generated)):
        # Files stand in the order of energies: each batch takes every 20th shower.
        parts = [events.select(showers, slice(k, None, BATCHES)) for k in range(BATCHES)]
        parts = [part for part in parts if len(part.deposits)]
        each = np.array([voxel_spectrum(x, edges) / len(x.deposits) for x in parts])
        error = each.std(axis=0) / np.sqrt(max(len(parts) - 1, 1))
        arrays[f"spectrum {name}"] = np.stack([each.mean(axis=0), error])
    return arrays


def _feature_histograms(found: Pair, geometry: Geometry, shown: list[int]) -> Arrays:
    """Histograms of the layers that are shown, "NAME layer ID"."""
    arrays: Arrays = {}
    sectors = [k for k, layer in enumerate(geometry.layers) if layer.n_alpha > 1]
    for name in ("e_layer", "sparsity", *(f"{a}_{b}" for b in "eta phi r".split() for a in AXES)):
        layers = sectors if name.endswith(("eta", "phi")) else range(len(geometry.layers))
        for column, k in enumerate(layers):
            if k not in shown:
                continue
            values = [x[name][:, column] for x in found]
            if name not in ("sparsity", "e_layer"):  # an empty layer has no place and no width
                values = [v[_lit(x, k)] for v, x in zip(values, found, strict=True)]
            edges = _edges(name, values[0], geometry.layers[k].size)
            arrays[f"{name} layer {geometry.layers[k].id}"] = binned(values, edges).packed()
    return arrays


AXES = ("centre", "width")


def _lit(found: Features, layer: int) -> Bool[np.ndarray, "n"]:
    lit: np.ndarray = found["e_layer"][:, layer] > 0
    return lit


def _edges(name: str, truth: Float64[np.ndarray, "n"], voxels: int) -> Float64[np.ndarray, "k+1"]:
    """Edges that hold nearly all of the truth."""
    if name == "e_layer":
        low, high = np.quantile(truth[truth > 0], [0.002, 1.0])
        return np.geomspace(0.999 * low, 1.001 * high, _bins(len(truth), 40) + 1)
    if name == "sparsity":
        steps = min(voxels, 20)  # one bin for each number of hits where there are few voxels
        return (np.arange(steps + 2) - 0.5) / steps
    high = float(np.quantile(np.abs(truth), 0.997))
    signed = name in ("centre_eta", "centre_phi")
    return _even(-high if signed else 0.0, high, _bins(len(truth), 40))


def _bins(showers: int, most: int) -> int:
    """Fewer bins for fewer showers."""
    return min(max(showers // PER_BIN, 5), most)


def _even(low: float, high: float, bins: int) -> Float64[np.ndarray, "k+1"]:
    """Bins of one width; of equal values, around them."""
    spare = 0.0 if high - low > 1e-9 * abs(high) else 0.5
    return np.linspace(low - spare, high + spare, bins + 1)


def _neighbours(
    truth: Showers, generated: Showers, train: Showers, geometry: Geometry
) -> tuple[Numbers, Arrays]:
    """Distances to the nearest training shower: a generator that copies comes too near.

    Up to `DRAWN` showers of each sample against all training showers of the same octave of energy,
    in voxels x = ln(1 + e/t), t the threshold, over their spread there; root mean square over the
    voxels. Octaves without training showers are left out.
    """
    octaves = [np.round(np.log2(x.incident_energy)).astype(int) for x in (train, truth, generated)]
    found: list[list[np.ndarray]] = [[], []]
    for octave in np.intersect1d(*octaves[:2]):
        own = train.deposits[octaves[0] == octave]
        for j, showers in enumerate((truth, generated)):
            rows = np.flatnonzero(octaves[1 + j] == octave)
            count = int(np.ceil(len(rows) * min(DRAWN / len(octaves[1 + j]), 1.0)))
            rows = np.random.default_rng((7, int(octave))).choice(rows, count, replace=False)
            found[j].append(nearest(showers.deposits[np.sort(rows)], own, geometry))
    if not found[0]:
        raise DataError("training showers", "are at no energy of the others", "give those used")
    real, made = (np.concatenate(part) for part in found)
    near = float(np.quantile(real, 0.01))
    numbers = {
        "median distance to the nearest training shower, generated over truth": float(
            np.median(made) / max(np.median(real), 1e-9)
        ),
        "share of generated showers nearer to a training shower than 1 % of truth": float(
            (made < near).mean()
        ),
    }
    return numbers, {"nearest truth": real, "nearest generated": made}


def nearest(
    rows: Float32[np.ndarray, "n v"], train: Float32[np.ndarray, "m v"], geometry: Geometry
) -> Float32[np.ndarray, "n"]:
    """Distance of each row to the nearest training shower, see `_neighbours`."""
    least = np.float32(geometry.threshold or NO_THRESHOLD)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(train), BLOCK):
            yield np.log1p(train[start : start + BLOCK] / least)

    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks()) / len(train)
    square = sum(((block - mean) ** 2).sum(axis=0) for block in blocks()) / len(train)
    middle = np.asarray(mean, np.float32)
    width = np.maximum(np.sqrt(square), LEAST_WIDTH).astype(np.float32)
    points = (np.log1p(rows / least) - middle) / width
    best = np.full(len(rows), np.inf, np.float32)
    own = (points**2).sum(axis=1)
    for block in blocks():
        other = (block - middle) / width
        square = own[:, None] + (other**2).sum(axis=1) - 2 * points @ other.T
        best = np.minimum(best, square.min(axis=1))
    distance: np.ndarray = np.sqrt(np.maximum(best, 0.0) / rows.shape[1])
    return distance
