"""Relaxation to a minimum: FIRE far from it, Newton steps with one Cholesky factor near it."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jaxtyping import Array, Float, Int

from physml.atoms.neighbors import Neighbors
from physml.atoms.potentials import Potential, energy_and_forces, evaluate, species_indices, system
from physml.atoms.vibrations import factorise, hessian, solve
from physml.errors import ConfigError, TrainingError
from physml.precision import float64

SKIN = 0.6  # Å beyond the cutoff: the table holds until an atom has moved half of it
FIRE_FMAX = 2e-3  # eV/Å: where Newton takes over at first
FIRE_STEPS = 5_000
KICK = 0.05  # Å, standard deviation of the displacement off a saddle
ATTEMPTS = 12


class Fire(NamedTuple):
    """State of FIRE (Bitzek et al., PRL 97, 170201 (2006)) with unit masses.

    positions, velocities, forces (rows, 3); time step, mixing `alpha`, steps since the power
    P = F.v was last negative, and steps taken.
    """

    positions: Float[Array, "rows 3"]
    velocities: Float[Array, "rows 3"]
    forces: Float[Array, "rows 3"]
    dt: Float[Array, ""]
    alpha: Float[Array, ""]
    uphill_free: Int[Array, ""]
    steps: Int[Array, ""]


def _fmax(forces: Float[Array, "n 3"]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.max(jnp.sum(forces * forces, axis=-1)))


def _fire_step(
    potential: Potential, state: Fire, species: Int[Array, " rows"], neighbors: Neighbors
) -> Fire:
    """One step with the paper's constants; the largest time step and move suit metals in eV, Å."""
    power = jnp.vdot(state.forces, state.velocities)
    downhill = power > 0
    speed = jnp.linalg.norm(state.velocities) / (jnp.linalg.norm(state.forces) + 1e-300)
    mixed = (1.0 - state.alpha) * state.velocities + state.alpha * speed * state.forces
    velocities = jnp.where(downhill, mixed, 0.0)
    ready = downhill & (state.uphill_free > 5)
    dt = jnp.where(ready, jnp.minimum(1.1 * state.dt, 0.35), state.dt)
    dt = jnp.where(downhill, dt, 0.5 * state.dt)
    alpha = jnp.where(ready, 0.99 * state.alpha, jnp.where(downhill, state.alpha, 0.1))
    velocities = velocities + dt * state.forces
    move = dt * velocities
    move = move * jnp.minimum(1.0, 0.1 / (_fmax(move) + 1e-300))
    positions = state.positions + move
    forces = energy_and_forces(potential, positions, species, neighbors)[1]
    free = jnp.where(downhill, state.uphill_free + 1, 0)
    return Fire(positions, velocities, forces, dt, alpha, free, state.steps + 1)


@functools.partial(jax.jit, static_argnums=0)
def _fire_until(
    potential: Potential,
    state: Fire,
    species: Int[Array, " rows"],
    neighbors: Neighbors,
    fmax: Float[Array, ""],
) -> Fire:
    """Step until the forces are small, the steps are used up, or the table is out of date."""
    start = state.positions
    forces = energy_and_forces(potential, start, species, neighbors)[1]

    def going(state: Fire) -> Array:
        fresh = _fmax(state.positions - start) < 0.5 * SKIN
        return fresh & (_fmax(state.forces) > fmax) & (state.steps < FIRE_STEPS)

    return jax.lax.while_loop(
        going,
        lambda state: _fire_step(potential, state, species, neighbors),
        state._replace(forces=forces),
    )


def _fire(atoms: Atoms, potential: Potential, fmax: float) -> Atoms:
    padded = system(atoms, potential, SKIN)
    zeros = jnp.zeros_like(padded.positions)
    state = Fire(
        jnp.asarray(padded.positions), zeros, zeros,
        jnp.asarray(0.1), jnp.asarray(0.1), jnp.asarray(0), jnp.asarray(0),
    )  # fmt: skip
    while True:
        state = _fire_until(potential, state, padded.species, padded.neighbors, jnp.asarray(fmax))
        atoms = _moved(atoms, np.asarray(state.positions)[: len(atoms)])
        if not np.isfinite(atoms.positions).all():
            raise TrainingError("relaxation", "the forces grew beyond bounds", "check the start")
        if float(_fmax(state.forces)) <= fmax or int(state.steps) >= FIRE_STEPS:
            return atoms
        padded = system(atoms, potential, SKIN)


def _moved(atoms: Atoms, positions: np.ndarray) -> Atoms:
    atoms = atoms.copy()
    atoms.positions = positions
    return atoms


def _forces(atoms: Atoms, potential: Potential) -> tuple[np.ndarray, float]:
    forces = evaluate(atoms, potential)[1]
    return forces, float(np.sqrt((forces**2).sum(axis=1).max()))


def _newton(atoms: Atoms, potential: Potential, fmax: float) -> tuple[Atoms | None, bool]:
    """Chord Newton steps with one factor; (None, False) says "not a minimum".

    Returns the last structure and whether its forces are below `fmax`. A step that does not at
    least halve the largest force ends the chord: the factor is out of date.
    """
    masses = np.array(potential.masses)[species_indices(atoms, potential)]
    factor = factorise(hessian(atoms, potential), masses)
    if factor is None:
        return None, False
    forces, size = _forces(atoms, potential)
    while size > fmax:
        step = solve(factor, forces)
        if np.abs(step).max() > 0.3:
            return atoms, False
        trial = _moved(atoms, atoms.positions + step)
        forces, trial_size = _forces(trial, potential)
        if trial_size > size:
            return atoms, False
        slow = trial_size > 0.5 * size
        atoms, size = trial, trial_size
        if slow:
            return atoms, size <= fmax
    return atoms, True


@float64
def relax(atoms: Atoms, potential: Potential, fmax: float = 1e-8, seed: int = 0) -> Atoms:
    """Relax the positions of a periodic structure at fixed cell to a true minimum.

    FIRE, then Newton steps that reuse one Cholesky factor. A factor that fails means "not a
    minimum": the structure is kicked off the saddle (by `seed`) and relaxed again.

    Args:
        atoms: start; it is not changed.
        potential: eV, Å.
        fmax: largest force at the end, eV/Å.
        seed: of the kicks.

    Returns:
        A copy with the relaxed positions, Å.

    Raises:
        ConfigError: `fmax` is not positive.
        DataError: see `neighbor_table` and `species_indices`.
        TrainingError: no minimum was reached.
    """
    if not fmax > 0:
        raise ConfigError("fmax", f"is {fmax} eV/Å", "give a positive force")
    rng = np.random.default_rng(seed)
    fire_fmax = max(fmax, FIRE_FMAX)
    for _ in range(ATTEMPTS):
        atoms = _fire(atoms, potential, fire_fmax)
        settled, done = _newton(atoms, potential, fmax)
        if settled is None:
            atoms = _moved(atoms, atoms.positions + rng.normal(0.0, KICK, atoms.positions.shape))
            continue
        atoms = settled
        if done:
            return atoms
        fire_fmax = max(fmax, min(fire_fmax, _forces(atoms, potential)[1]) / 10.0)
    what = f"no minimum below {fmax:g} eV/Å after {ATTEMPTS} attempts"
    raise TrainingError("relaxation", what, "check the start, or raise fmax")
