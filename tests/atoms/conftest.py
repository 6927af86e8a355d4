"""Structures and potentials that several tests use."""

import numpy as np
import pytest

from physml.atoms.defects import bcc
from physml.atoms.potentials import ackland_mendelev_2004


@pytest.fixture(scope="session")
def iron():
    return ackland_mendelev_2004()


@pytest.fixture
def rattled():
    """128 atoms of bcc iron with a vacancy, far from rest."""
    atoms = bcc(4)
    atoms.rattle(0.1, seed=1)
    del atoms[3]
    return atoms


def _lines(values):
    return "\n".join(" ".join(f"{x:.16e}" for x in row) for row in np.reshape(values, (-1, 5)))


def write_setfl(path, species, tables, n=2000, rho_max=120.0, cutoff=5.3):
    """Write an eam.fs or eam.alloy file from functions F(rho), psi(r), phi(r) per species.

    `tables` holds embedding[a], density[a][b] (fs) or density[a] (alloy), pair[a, b].
    """
    embedding, density, pair = tables
    rho, r = np.arange(n) * rho_max / n, np.arange(n) * cutoff / (n - 1)
    text = ["a test potential"] * 3 + [f"{len(species)} {' '.join(species)}"]
    text.append(f"{n} {rho_max / n!r} {n} {cutoff / (n - 1)!r} {cutoff!r}")
    for a, _ in enumerate(species):
        text.append(f"26 {50.0 + a} 2.85 bcc")
        text.append(_lines(embedding[a](rho)))
        rows = density[a] if isinstance(density[a], list) else [density[a]]
        text += [_lines(row(r)) for row in rows]
    for a in range(len(species)):
        text += [_lines(r * pair[a, b](np.maximum(r, 0.1))) for b in range(a + 1)]
    path.write_text("\n".join(text) + "\n")
    return path


def _bump(height, reach):
    return lambda r: height * np.maximum(reach - r, 0.0) ** 4


@pytest.fixture(params=["fs", "alloy"])
def two_species(request, tmp_path):
    """A smooth binary potential on disk, as eam.fs (asymmetric densities) and as eam.alloy."""
    embedding = [lambda x: -np.sqrt(x + 0.01), lambda x: -0.7 * np.sqrt(x + 0.02)]
    fs = [[_bump(0.02, 5.0), _bump(0.013, 5.2)], [_bump(0.03, 4.8), _bump(0.017, 5.1)]]
    density = fs if request.param == "fs" else [fs[0][0], fs[1][1]]
    pair = {(0, 0): _bump(0.03, 4.9), (1, 0): _bump(0.02, 5.2), (1, 1): _bump(0.04, 5.0)}
    name = f"FeCr.eam.{request.param}"
    return write_setfl(tmp_path / name, ["Fe", "Cr"], (embedding, density, pair))
