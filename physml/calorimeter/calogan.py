"""CaloGAN (Paganini et al., arXiv 1712.10321): its own networks, losses and optimisers.

What the paper leaves open is as in its program (github hep-lbdl/CaloGAN). Cross entropy, and for
the generator 0.05 times the mean distance of the deposits' sum from the incident energy in GeV.
A step moves the discriminator on real showers and then on made ones, apart from each other, and the
generator twice. Two things are ours: made showers take the energies of the batch (there even from 1
to 100 GeV, as in the data), and planes whose cells do not divide each other are brought to the same
cells by their areas, so that any geometry can be had.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32

from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import Geometry
from physml.calorimeter.nets import CaloGANDiscriminator, CaloGANGenerator
from physml.calorimeter.objective import Sample, chi2, in_blocks
from physml.options import Adversarial
from physml.train import Batch, Metrics, Objective, TrainState

LATENT = 1024
GEV = 1e3  # MeV
ENERGY_WEIGHT = 0.05
BETA = 0.5  # of Adam


class Networks(NamedTuple):
    """The two players; hashable."""

    generator: CaloGANGenerator
    critic: CaloGANDiscriminator


class Range(NamedTuple):
    """Incident energies that were trained on."""

    span: Float32[Array, "2"]  # ln of the smallest and largest, MeV


def networks(geometry: Geometry) -> Networks:
    """Generator and discriminator for the layers of a geometry."""
    shapes = tuple((layer.n_alpha, layer.n_r) for layer in geometry.layers)
    return Networks(CaloGANGenerator(shapes), CaloGANDiscriminator(shapes))


def objective(nets: Networks, geometry: Geometry, options: Adversarial) -> Objective:
    """Train on rows of energy (n,) MeV and deposits (n, voxels) MeV.

    The best state is that of the smallest chi2 on the validation split, see `objective.chi2`.

    Args:
        nets: see `networks`.
        geometry: of the voxels.
        options: steps, batch, rates, memory and evaluations; the rest is of another game.
            Published: 2e-5, 2e-4 and 0.999 in batches of 256, 50 times over the data.
    """
    rates = {"critic": options.critic_rate, "generator": options.generator_rate}
    descents = {name: optax.adam(rate, BETA, options.memory) for name, rate in rates.items()}

    def init(key: Any, train: Batch) -> TrainState:
        ends = np.array([train["energy"].min(), train["energy"].max()], np.float64)
        params_key, step_key = jax.random.split(key)
        params = dict(jax.jit(partial(_initial, nets, geometry.size))(params_key))
        params["scale"] = Range(jnp.asarray(np.log(ends), jnp.float32))
        state = {name: descent.init(params[name]) for name, descent in descents.items()}
        return TrainState(params, state, jnp.int32(0), step_key)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        params, opt_state = dict(state.params), dict(state.opt_state)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        energy, real = batch["energy"] / GEV, batch["deposits"] / GEV
        made, _ = _showers(
            nets.generator, params["generator"], params["statistics"], keys[0], energy, False
        )

        # By scans, so that each player's step is compiled once.
        def judge(player: Any, shown: Any) -> tuple[Any, Any]:
            loss, slope = jax.value_and_grad(partial(_cross_entropy, nets))(
                player[0], *shown, energy
            )
            return _descend(descents["critic"], slope, player), loss

        def trick(player: Any, key: Any) -> tuple[Any, Any]:
            tricked = jax.value_and_grad(partial(_generator_loss, nets), has_aux=True)
            (loss, (statistics, apart)), slope = tricked(
                player[0], params["critic"], player[2], key, energy
            )
            return (*_descend(descents["generator"], slope, player[:2]), statistics), (loss, apart)

        shown = jnp.stack([real, made]), jnp.array([1.0, 0.0])
        player = params["critic"], opt_state["critic"]
        (params["critic"], opt_state["critic"]), losses = jax.lax.scan(judge, player, shown)
        players = params["generator"], opt_state["generator"], params["statistics"]
        players, (tricks, apart) = jax.lax.scan(trick, players, keys[1:])
        params["generator"], opt_state["generator"], params["statistics"] = players
        metrics = {"loss": losses.mean(), "generator_loss": tricks[-1], "apart_gev": apart[-1]}
        return TrainState(params, opt_state, state.step + 1, state.key), metrics

    sample = sampler(nets.generator, geometry)

    def evaluate(state: TrainState, rows: Batch) -> Metrics:
        found = sample(state.params, rows["energy"], (0,))
        return chi2(Showers(rows["energy"], rows["deposits"]), found, geometry)

    return Objective(
        init, step, evaluate, options.steps, options.batch_size, options.evaluate_every,
        monitor="chi2",
    )  # fmt: skip


def sampler(net: CaloGANGenerator, geometry: Geometry, block: int = 256) -> Sample:
    """A compiled function that makes showers, `block` at a time; see `objective.sampler`.

    Of the params it takes the generator's weights and the running statistics of its batches.
    """

    @jax.jit
    def made(weights: Any, statistics: Any, key: Any, energy: Any) -> Any:
        return GEV * _showers(net, weights, statistics, key, energy / GEV, False)[0]

    return in_blocks(made, ("generator", "statistics"), geometry.size, block)


def _initial(nets: Networks, size: int, key: Any) -> dict[str, Any]:
    keys = jax.random.split(key)
    energy, deposits = jnp.ones(2), jnp.ones((2, size))
    made = nets.generator.init(keys[0], jnp.zeros((2, LATENT)), energy, False)
    critic = nets.critic.init(keys[1], deposits, energy)["params"]
    return {"generator": made["params"], "statistics": made["batch_stats"], "critic": critic}


def _showers(
    net: CaloGANGenerator, weights: Any, statistics: Any, key: Any, energy: Any, train: bool
) -> tuple[Any, Any]:
    """Deposits (GeV), and the running statistics after them; both players' energies are GeV."""
    latent = jax.random.normal(key, (len(energy), LATENT))
    variables = {"params": weights, "batch_stats": statistics}
    found, after = net.apply(variables, latent, energy, train, mutable=["batch_stats"])
    return found, after["batch_stats"]


def _descend(descent: Any, slope: Any, player: tuple[Any, Any]) -> tuple[Any, Any]:
    updates, opt_state = descent.update(slope, player[1], player[0])
    return optax.apply_updates(player[0], updates), opt_state


def _cross_entropy(nets: Networks, weights: Any, deposits: Any, label: Any, energy: Any) -> Any:
    # What it keeps of its batches is never used: it sees whole batches only.
    logit, _ = nets.critic.apply({"params": weights}, deposits, energy, mutable=["batch_stats"])
    return optax.sigmoid_binary_cross_entropy(logit, jnp.full_like(logit, label)).mean()


def _generator_loss(
    nets: Networks, weights: Any, critic: Any, statistics: Any, key: Any, energy: Any
) -> tuple[Any, tuple[Any, Any]]:
    made, statistics = _showers(nets.generator, weights, statistics, key, energy, True)
    apart = jnp.abs(made.sum(axis=1) - energy).mean()
    tricked = _cross_entropy(nets, critic, made, 1.0, energy)
    return tricked + ENERGY_WEIGHT * apart, (statistics, apart)
