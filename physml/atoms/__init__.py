"""Point defects in crystals: potentials, relaxation, vibrations and descriptors.

Lengths in Å, energies in eV, entropies in kB, temperatures in K; all float64.
"""

from physml.atoms.descriptors import Form, afs, afs_of_vectors, afs_sum
from physml.atoms.minimize import relax
from physml.atoms.vibrations import (
    formation_entropy,
    hessian,
    vibrational_entropy,
    vibrational_free_energy,
)

__all__ = [
    "Form",
    "afs",
    "afs_of_vectors",
    "afs_sum",
    "formation_entropy",
    "hessian",
    "relax",
    "vibrational_entropy",
    "vibrational_free_energy",
]
