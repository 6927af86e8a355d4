"""Layers and voxels of a calorimeter: rings and sectors around the shower axis, or planes of cells.

The voxels of a shower stand in one row: by layer, then alpha, then r, of which r runs fastest, as
the CaloChallenge stores them (arXiv 2410.21611); planes of cells by layer, then x, then y. The
numbers of the challenge's four geometries are those of its binning files (github
CaloChallenge/homepage); those of CaloGAN (arXiv 1712.10321) are those of its program (github
hep-lbdl/CaloGAN). Lengths mm, angles rad, depths along the shower axis in radiation lengths (X0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float64, Int64

from physml.errors import ConfigError, DataError
from physml.matter import radiation_length

MAX_VOXELS = 10_000_000
NO_THRESHOLD = 0.01  # MeV, taken where a geometry names none
MAX_XML = 1 << 20  # bytes

Edges = Sequence[float] | np.ndarray


class Layer(NamedTuple):
    """Voxels of one layer: a grid of (alpha, r), or of (x, y) in a plane of cells."""

    id: int  # as the file names it
    polar: bool
    slow: Float64[np.ndarray, "a+1"]  # edges of alpha from -pi to pi, or of x, mm
    fast: Float64[np.ndarray, "b+1"]  # edges of r or of y, mm
    depth: tuple[float, float] | None = None  # front and back face, X0; None: not known

    @property
    def n_alpha(self) -> int:
        """Bins of the slow axis."""
        return len(self.slow) - 1

    @property
    def n_r(self) -> int:
        """Bins of the fast axis."""
        return len(self.fast) - 1

    @property
    def r_edges(self) -> Float64[np.ndarray, "b+1"]:
        """Edges of the rings, mm; of the cells in y in a plane."""
        return self.fast

    @property
    def size(self) -> int:
        """Voxels."""
        return self.n_alpha * self.n_r


class Stack(NamedTuple):
    """Plates of two materials that repeat along the shower axis; what a maker needs to know."""

    passive: str  # chemical symbol
    passive_mm: float
    active: str
    active_mm: float
    repeats: int
    sampling_fraction: float | None  # active deposits were divided by it; None: both counted


class Geometry(NamedTuple):
    """Layers in the order of their voxels."""

    layers: tuple[Layer, ...]
    particle: str = ""
    threshold: float = 0.0  # MeV: voxels below it are stored as 0
    stack: Stack | None = None

    @classmethod
    def from_xml(cls, path: str | Path, particle: str) -> Geometry:
        """Geometry of a binning file of the CaloChallenge; see `from_xml`."""
        return from_xml(path, particle)

    @property
    def size(self) -> int:
        """Voxels."""
        return sum(layer.size for layer in self.layers)


class Centres(NamedTuple):
    """Middle of each voxel; eta, phi are the challenge's names for the axes across the shower."""

    eta: Float64[np.ndarray, "voxels"]  # r cos(alpha), or y, mm
    phi: Float64[np.ndarray, "voxels"]  # r sin(alpha), or x, mm
    r: Float64[np.ndarray, "voxels"]  # mean of the ring's edges, or distance from the axis, mm
    layer: Int64[np.ndarray, "voxels"]  # place in `Geometry.layers`


def polar_layer(
    id: int, n_alpha: int, r_edges: Edges, depth: tuple[float, float] | None = None
) -> Layer:
    """Rings of edges `r_edges` (mm), each cut into `n_alpha` sectors that begin at alpha = -pi."""
    alpha = np.linspace(-math.pi, math.pi, n_alpha + 1)
    return Layer(id, True, alpha, np.asarray(r_edges, np.float64), depth)


def cell_layer(
    id: int,
    x_edges: Edges,
    y_edges: Edges,
    depth: tuple[float, float] | None = None,
) -> Layer:
    """Cells of a plane with edges in x (the slow axis) and y, mm."""
    return Layer(id, False, np.asarray(x_edges, np.float64), np.asarray(y_edges, np.float64), depth)


def slices(geometry: Geometry) -> list[slice]:
    """Voxels of each layer in the row of a shower."""
    ends = np.cumsum([layer.size for layer in geometry.layers]).tolist()
    return [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def centres(geometry: Geometry) -> Centres:
    """Middle of each voxel, by the challenge's definition (arithmetic means of the edges)."""
    parts = [_layer_centres(layer) for layer in geometry.layers]
    eta, phi, r = (np.concatenate(column) for column in zip(*parts, strict=True))
    sizes = [layer.size for layer in geometry.layers]
    return Centres(eta, phi, r, np.repeat(np.arange(len(sizes)), sizes))


def _layer_centres(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    slow, fast = (edges[:-1] + np.diff(edges) / 2 for edges in (layer.slow, layer.fast))
    first, second = (grid.ravel() for grid in np.meshgrid(slow, fast, indexing="ij"))
    if layer.polar:
        return second * np.cos(first), second * np.sin(first), second
    return second, first, np.hypot(first, second)


def check(geometry: Geometry, where: object = "geometry") -> None:
    """Refuse a geometry that holds no voxels or whose edges do not rise.

    Raises:
        ConfigError: see above; negative radii, more than `MAX_VOXELS` voxels, layers that share a
            number, depths that run backwards, a threshold or stack that cannot be.
    """
    ids = [layer.id for layer in geometry.layers]
    if not ids or len(set(ids)) < len(ids):
        raise ConfigError(where, f"has layers {ids}", "give each layer a number of its own")
    if geometry.size > MAX_VOXELS:
        what = f"has {geometry.size} voxels, over the limit of {MAX_VOXELS}"
        raise ConfigError(where, what, "use larger ones")
    for layer in geometry.layers:
        for edges in (layer.slow, layer.fast):
            rising = len(edges) > 1 and np.isfinite(edges).all() and (np.diff(edges) > 0).all()
            if not rising or (layer.polar and layer.fast[0] < 0):
                remedy = "give at least two that rise, radii from 0"
                raise ConfigError(
                    f"{where}, layer {layer.id}", "has edges that do not rise", remedy
                )
        if layer.depth is not None and not 0 <= layer.depth[0] < layer.depth[1] < math.inf:
            what = f"has depths {layer.depth}"
            raise ConfigError(f"{where}, layer {layer.id}", what, "give front < back in X0")
    if not 0 <= geometry.threshold < math.inf:
        raise ConfigError(where, f"has a threshold of {geometry.threshold:g} MeV", "give 0 or more")
    if geometry.stack is not None:
        _check_stack(geometry.stack, where)


def _check_stack(stack: Stack, where: object) -> None:
    fraction = 1.0 if stack.sampling_fraction is None else stack.sampling_fraction
    if not (0 <= stack.passive_mm < math.inf and 0 < stack.active_mm < math.inf):
        what = f"has plates of {stack.passive_mm:g} and {stack.active_mm:g} mm"
        raise ConfigError(f"{where}, stack", what, "give 0 mm or more passive, and some active")
    if not 0 < fraction <= 1:
        what = f"has a sampling fraction of {fraction:g}"
        raise ConfigError(f"{where}, stack", what, "give a share above 0, or None")


def from_xml(path: str | Path, particle: str) -> Geometry:
    """Geometry of a binning file of the CaloChallenge; it says nothing about depths.

    Args:
        path: XML file: `Bins/Bin[name]/Layer[id, r_edges, n_bin_alpha]`. Layers with one edge only
            are not used.
        particle: "photon", "pion", "electron", or another `name` of a `Bin`.

    Raises:
        DataError: missing, damaged or no such file; no such particle, or twice; a layer without
            numbers, or as `check` refuses it.
    """
    root = _parsed(path)
    bins = [item for item in root if item.get("name") == particle]
    if len(bins) != 1:
        held = ", ".join(str(item.get("name")) for item in root) or "none"
        what = f"describes {particle!r} {len(bins)} times"
        raise DataError(path, what, f"name one of its particles: {held}")
    try:
        found = [_xml_layer(item) for item in bins[0]]
        geometry = Geometry(tuple(layer for layer in found if layer is not None), particle)
        check(geometry, path)
    except ConfigError as error:
        raise DataError(error.where, error.what, error.remedy) from error
    except (TypeError, ValueError) as error:
        what = f"holds a layer without whole numbers ({error})"
        raise DataError(path, what, "give id, n_bin_alpha and r_edges of each layer") from error
    return geometry


def _xml_layer(item: ElementTree.Element) -> Layer | None:
    """A layer, or None where it has no voxels."""
    edges = [float(word) for word in item.attrib.get("r_edges", "").split(",")]
    n_alpha, number = int(item.attrib.get("n_bin_alpha", "")), int(item.attrib.get("id", ""))
    if not 1 <= n_alpha <= MAX_VOXELS:
        raise ConfigError(f"layer {number}", f"has {n_alpha} bins in alpha", "give 1 or more")
    return polar_layer(number, n_alpha, edges) if len(edges) > 1 else None


def _parsed(path: str | Path) -> ElementTree.Element:
    try:
        if not Path(path).is_file():
            raise DataError(path, "is not a readable file", "check the path")
        with open(path, "rb") as file:
            content = file.read(MAX_XML + 1)
        if len(content) > MAX_XML or b"<!" in content.replace(b"<!--", b""):
            what = "is larger than 1 MB, or declares entities"
            raise DataError(path, what, "give a binning file of the CaloChallenge")
        return ElementTree.fromstring(content)
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        remedy = "give a binning file of the CaloChallenge"
        raise DataError(path, f"cannot be read as XML ({error})", remedy) from error


# Edges of the rings of data set 1, mm.
_CORE = (0, 5, 10, 30, 50, 100, 200, 400, 600)
_COARSE = (0, 50, 100, 200, 400, 600)
_WIDE = (0, 100, 200, 400, 1000, 2000)
_PHOTON_1 = (0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200)
_PHOTON_2 = (
    0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 350, 400,
)  # fmt: skip
_PION_1 = (0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200)
_PION_2 = (0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400)
_PION_12 = (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 1000, 2000)
_PION_13 = (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 600, 1000, 2000)
_PION_14 = (0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000)

# Atomic number, g/mol and density (g/cm³) of the plates: PDG, Atomic and Nuclear Properties.
_PLATES = {
    "W": (74, 183.84, 19.3), "Si": (14, 28.0855, 2.329),
    "Pb": (82, 207.2, 11.35), "Ar": (18, 39.948, 1.396),
}  # fmt: skip

# Depths in the ATLAS barrel, X0. Strips 4.3 and middle 16 (thesis of U. Egede, Lund 1998), back 2
# (the rest of "more than 22"), presampler 11 mm of argon. ASSUMED, for no source was found on where
# the particles of the files start: 2 X0 of coil and cryostat in front, 1 behind, and 15 for the
# first layer of the tile calorimeter. The layers behind it have no depth.
_ATLAS = {
    0: (2.0, 2.08), 1: (2.08, 6.38), 2: (6.38, 22.38), 3: (22.38, 24.38), 12: (25.38, 40.38),
}  # fmt: skip
# Plates of the accordion: Geant4, StatAccepTest/dirUseCases/atlasECAL.g4; 74 of them make 22.3 X0.
# The share of argon, 0.18, is that of CaloGAN's plates in Geant4 11.4.0 (0.183), not ATLAS's own;
# the maker asks only whether there is one.
_ACCORDION = Stack("Pb", 1.53, "Ar", 4.2, 74, 0.18)


def dataset_1_photons() -> Geometry:
    """CaloChallenge data set 1, photons: 368 voxels of ATLAS-like layers 0-3 and 12.

    The depths are partly assumed, and the stack (lead and argon of the accordion, without its
    steel) stands for all layers: see `_ATLAS`. The maker's sampling noise in it, 7.5 % at 1 GeV, is
    that of CaloGAN's plates; the ATLAS barrel has about 10 % (arXiv physics/0608012).
    """
    rows = ((0, 1, _CORE), (1, 10, _PHOTON_1), (2, 10, _PHOTON_2), (3, 1, _COARSE), (12, 1, _WIDE))
    return _dataset_1("photon", rows)


def dataset_1_pions() -> Geometry:
    """CaloChallenge data set 1, charged pions: 533 voxels of layers 0-3 and 12-14; see photons.

    Layers 13 and 14 have no depths, so that the maker refuses it for any particle.
    """
    rows = (
        (0, 1, _CORE), (1, 10, _PION_1), (2, 10, _PION_2), (3, 1, _COARSE),
        (12, 10, _PION_12), (13, 10, _PION_13), (14, 1, _PION_14),
    )  # fmt: skip
    return _dataset_1("pion", rows)


def _dataset_1(particle: str, rows: Sequence[tuple[int, int, Sequence[float]]]) -> Geometry:
    layers = tuple(polar_layer(k, n, edges, _ATLAS.get(k)) for k, n, edges in rows)
    return Geometry(layers, particle, 1.0, _ACCORDION)


def dataset_2() -> Geometry:
    """CaloChallenge data set 2: 45 layers of 16 sectors and 9 rings of 4.65 mm; 6480 voxels.

    Electrons in 90 plates of 1.4 mm tungsten and 0.3 mm silicon, two to a layer.
    """
    return _silicon_tungsten(16, 9)


def dataset_3() -> Geometry:
    """CaloChallenge data set 3: as set 2, with 50 sectors and 18 rings of 2.325 mm; 40500."""
    return _silicon_tungsten(50, 18)


def _silicon_tungsten(n_alpha: int, n_r: int) -> Geometry:
    stack = Stack("W", 1.4, "Si", 0.3, 90, 0.033)
    edges = 41.85 / n_r * np.arange(n_r + 1)
    step = 2 * plate_depth(stack)
    layers = [polar_layer(k, n_alpha, edges, (k * step, (k + 1) * step)) for k in range(45)]
    return Geometry(tuple(layers), "electron", 0.01515, stack)


def calogan(particle: str = "electron") -> Geometry:
    """The three planes of CaloGAN: 3 x 96, 12 x 12 and 12 x 6 cells in 480 mm x 480 mm.

    80 plates of 2 mm lead and 4 mm argon; planes of 90, 347 and 43 mm; what lead and argon take is
    counted.
    """
    stack = Stack("Pb", 2.0, "Ar", 4.0, 80, None)
    ends = np.array([0.0, 90.0, 437.0, 480.0]) * plate_depth(stack) / 6.0
    layers = []
    for k, (columns, rows) in enumerate(((3, 96), (12, 12), (12, 6))):
        x, y = np.linspace(-240, 240, columns + 1), np.linspace(-240, 240, rows + 1)
        layers.append(cell_layer(k, x, y, (float(ends[k]), float(ends[k + 1]))))
    return Geometry(tuple(layers), particle, 0.0, stack)


def plate_depth(stack: Stack) -> float:
    """Radiation lengths of one passive and one active plate (Tsai's formula)."""
    lengths = {k: 10 * radiation_length(z, a) / rho for k, (z, a, rho) in _PLATES.items()}  # mm
    return stack.passive_mm / lengths[stack.passive] + stack.active_mm / lengths[stack.active]
