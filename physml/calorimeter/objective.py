"""Adversarial training of a shower generator: Wasserstein distance with a gradient penalty.

Two critics judge: one the energies of the layers, one whole showers at the layers' energies of a
real shower, so that neither part of the generator waits for the other. Losses: Arjovsky et al.,
arXiv 1701.07875; Gulrajani et al., arXiv 1704.00028. What is kept is an exponential moving average
of the generator's weights (Yazici et al., arXiv 1806.04498).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from physml.calorimeter import generator
from physml.calorimeter.events import Showers
from physml.calorimeter.features import features
from physml.calorimeter.generator import HEAD_LATENT, LATENT, Grid, Scale
from physml.calorimeter.geometry import Geometry
from physml.calorimeter.nets import Critic, Generator
from physml.options import Adversarial
from physml.train import Batch, Metrics, Objective, TrainState

BINS = 10  # of each feature in the chi2, with equal numbers of validation showers


class Networks(NamedTuple):
    """The three players; hashable."""

    generator: Generator
    showers: Critic
    layers: Critic


def networks(geometry: Geometry, widths: Any, critic_widths: Any) -> Networks:
    """A generator and its two critics for a geometry, with hidden layers of the given widths."""
    made = Generator(len(geometry.layers), geometry.size, tuple(widths))
    return Networks(made, Critic(tuple(critic_widths)), Critic((128, 128, 128)))


def objective(nets: Networks, geometry: Geometry, options: Adversarial) -> Objective:
    """Train on rows of energy (n,) MeV and deposits (n, voxels) MeV.

    A step moves the critics once; every `critic_steps`-th also moves the generator. The best
    state is that of the smallest chi2 (see `chi2`) on the validation split.

    Args:
        nets: see `networks`.
        geometry: of the voxels.
        options: of the training.
    """
    grid = generator.grid(geometry)
    descents = {
        name: optax.adam(optax.cosine_decay_schedule(rate, updates), b1=0.0, b2=options.memory)
        for name, rate, updates in (
            ("critic", options.critic_rate, options.steps),
            ("generator", options.generator_rate, -(-options.steps // options.critic_steps)),
        )
    }

    def init(key: Any, train: Batch) -> TrainState:
        scale = generator.fit_scale(Showers(train["energy"], train["deposits"]), geometry)
        params_key, step_key = jax.random.split(key)
        made, critic = jax.jit(partial(_initial, nets, grid))(scale, params_key)
        state = {
            name: descents[name].init(p) for name, p in (("generator", made), ("critic", critic))
        }
        params = {"generator": made, "critic": critic, "average": made, "scale": scale}
        return TrainState(params, state, jnp.int32(0), step_key)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        params, opt_state = dict(state.params), dict(state.opt_state)
        key, lines, moved = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        real = _real(params["scale"], grid, batch)
        made = _made(nets, params["generator"], params["scale"], grid, key, batch)
        slope, metrics = jax.grad(partial(_critic_loss, nets, penalties), has_aux=True)(
            params["critic"], real, jax.lax.stop_gradient(made), lines
        )
        params["critic"], opt_state["critic"] = _descend(
            descents["critic"], slope, opt_state["critic"], params["critic"]
        )

        def move(both: Any) -> Any:
            slope = jax.grad(partial(_generator_loss, nets, grid))(
                both[0], params["critic"], params["scale"], moved, batch
            )
            made, own = _descend(descents["generator"], slope, both[1], both[0])
            done = (state.step // options.critic_steps).astype(jnp.float32)
            keep = jnp.minimum(options.average, (1 + done) / (10 + done))
            return made, own, jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, both[2], made)

        players = params["generator"], opt_state["generator"], params["average"]
        turn = state.step % options.critic_steps == 0
        players = jax.lax.cond(turn, move, lambda both: both, players)
        params["generator"], opt_state["generator"], params["average"] = players
        return TrainState(params, opt_state, state.step + 1, state.key), metrics

    penalties = {"layers": options.layers_penalty, "showers": options.penalty}
    sample = sampler(nets.generator, geometry)

    def evaluate(state: TrainState, rows: Batch) -> Metrics:
        found = sample(state.params, rows["energy"], (0,))
        return chi2(Showers(rows["energy"], rows["deposits"]), found, geometry)

    return Objective(
        init, step, evaluate, options.steps, options.batch_size, options.evaluate_every,
        monitor="chi2",
    )  # fmt: skip


Sample = Callable[[Any, Any, tuple[int, ...]], Showers]
"""(params of a fit, incident energies (n,) MeV, seeds) -> showers."""


def sampler(net: Generator, geometry: Geometry, block: int = generator.BLOCK) -> Sample:
    """A compiled function that makes showers, `block` at a time.

    Shower i depends on the seeds, the block, its energy and i only. Of the params it takes the
    averaged weights and the scale.
    """
    grid = generator.grid(geometry)

    @jax.jit
    def made(params: Any, scale: Scale, key: Any, energy: Any) -> Any:
        normal = generator.latents(key, len(energy), grid)
        return generator.from_latents(net, params, scale, grid, *normal, energy)

    return in_blocks(made, ("average", "scale"), geometry.size, block)


def in_blocks(made: Callable[..., Any], players: tuple[str, ...], size: int, block: int) -> Sample:
    """Showers from a jitted function, `block` at a time, each block from a key of its own.

    Args:
        made: (the params named by `players`, key, energies (block,) MeV) -> deposits, MeV.
        players: names of the params that it takes.
        size: voxels.
        block: showers in each call; the last is filled up.
    """

    def sample(params: Any, energies: Any, seeds: tuple[int, ...]) -> Showers:
        energy = np.asarray(energies, np.float64)
        key = jax.random.PRNGKey(0)
        for seed in seeds:
            key = jax.random.fold_in(key, seed)
        given = jax.device_put(tuple(params[name] for name in players))
        deposits = np.zeros((len(energy), size), np.float32)
        for number, start in enumerate(range(0, len(energy), block)):
            part = energy[start : start + block]
            full = np.concatenate([part, np.full(block - len(part), 1e4)]).astype(np.float32)
            found = made(*given, jax.random.fold_in(key, number), full)
            deposits[start : start + block] = np.asarray(found)[: len(part)]
        return Showers(energy, deposits)

    return sample


def chi2(reference: Showers, generated: Showers, geometry: Geometry) -> dict[str, float]:
    """How far the features of two samples at the same energies differ; about 1 for equal ones.

    For each octave of the incident energy and each column of the response, the layers' energies,
    centres, widths and sparsities: chi2 per degree of freedom of histograms whose `BINS` edges are
    quantiles of the reference. The mean over all; "response" is that of E_tot/E_inc alone.
    """
    found = []
    columns = [_columns(features(showers, geometry)) for showers in (reference, generated)]
    octave = np.round(np.log2(reference.incident_energy)).astype(int)
    for place in np.unique(octave):
        rows = octave == place
        found.append([_histogram_chi2(a[rows], b[rows]) for a, b in zip(*columns, strict=True)])
    each = np.array(found)
    return {"chi2": float(np.nanmean(each)), "chi2_response": float(np.nanmean(each[:, 0]))}


def _columns(found: dict[str, np.ndarray]) -> list[np.ndarray]:
    names = [name for name in found if name not in ("e_inc", "e_tot")]
    return [column for name in names for column in np.atleast_2d(found[name].T)]


def _histogram_chi2(a: np.ndarray, b: np.ndarray) -> float:
    """Chi2 per degree of freedom of two samples; nan where the reference has one value only."""
    edges = np.unique(np.quantile(a, np.linspace(0, 1, BINS + 1)[1:-1]))
    p, q = (np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1) for x in (a, b))
    both = p + q
    used = both > 0
    if used.sum() < 2:
        return float("nan")
    return float(((p - q)[used] ** 2 / both[used]).sum() / (used.sum() - 1))


def _initial(nets: Networks, grid: Grid, scale: Scale, key: Any) -> tuple[Any, dict[str, Any]]:
    """Weights of the generator and of the critics before the first step."""
    keys = jax.random.split(key, 3)
    energy = jnp.exp(jnp.asarray(scale.span[:1]))
    layers = energy[:, None] * jnp.ones((1, len(grid.slices))) / len(grid.slices)
    deposits = jnp.zeros((1, grid.size))
    told = generator.told(scale, grid, energy, layers)
    whole = generator.seen(scale, grid, energy, layers, deposits, deposits)
    latents = jnp.zeros((1, HEAD_LATENT)), jnp.zeros((1, LATENT)), deposits

    def both(net: Generator, *given: Any) -> tuple[Any, Any]:
        return net.energies(given[0], given[3]), net.voxels(given[1], given[2], given[4])

    alone = generator.told(scale, grid, energy)
    made = nets.generator.init(keys[0], *latents, alone, told, method=both)["params"]
    critics = {
        "showers": nets.showers.init(keys[1], whole)["params"],
        "layers": nets.layers.init(keys[2], told)["params"],
    }
    return made, critics


def _real(scale: Scale, grid: Grid, batch: Batch) -> tuple[Any, Any]:
    """What the two critics see of real showers."""
    energy, deposits = batch["energy"], batch["deposits"]
    layers, gates = generator.sums(grid, deposits), (deposits > 0).astype(jnp.float32)
    told = generator.told(scale, grid, energy, layers)
    return told, generator.seen(scale, grid, energy, layers, deposits, gates)


def _made(
    nets: Networks, params: Any, scale: Scale, grid: Grid, key: Any, batch: Batch
) -> tuple[Any, Any]:
    """What they see of the generator: its layers' energies; its voxels at those of real showers."""
    energy, net = batch["energy"], nets.generator
    head_latent, latent = generator.latents(key, len(energy), grid)
    own = generator.layer_energies(net, params, scale, grid, head_latent, energy)
    layers = generator.sums(grid, batch["deposits"])
    deposits, gates = generator.voxels(net, params, scale, grid, latent, energy, layers)
    told = generator.told(scale, grid, energy, own)
    return told, generator.seen(scale, grid, energy, layers, deposits, gates)


def _critic_loss(
    nets: Networks, penalties: dict[str, float], params: Any, real: Any, made: Any, key: Any
) -> tuple[Any, Metrics]:
    loss: Any = 0.0
    metrics: dict[str, Any] = {}
    lines = jax.random.uniform(key, (len(real[0]), 1))
    for k, (name, net) in enumerate((("layers", nets.layers), ("showers", nets.showers))):
        score: Any = partial(net.apply, {"params": params[name]})
        distance = score(real[k]).mean() - score(made[k]).mean()
        between = real[k] + lines * (made[k] - real[k])
        slope = jax.grad(lambda x, score=score: score(x).sum())(between)
        steep = jnp.mean((jnp.sqrt((slope**2).sum(axis=1) + 1e-12) - 1) ** 2)
        loss += penalties[name] * steep - distance
        metrics |= {f"distance_{name}": distance, f"penalty_{name}": steep}
    return loss, {"loss": loss, **metrics}


def _generator_loss(
    nets: Networks, grid: Grid, params: Any, critics: Any, scale: Scale, key: Any, batch: Batch
) -> Any:
    made = _made(nets, params, scale, grid, key, batch)
    pairs = zip((nets.layers, nets.showers), ("layers", "showers"), made, strict=True)
    scores: list[Any] = [net.apply({"params": critics[name]}, x) for net, name, x in pairs]
    return -sum(score.mean() for score in scores)


def _descend(descent: Any, slope: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
    updates, opt_state = descent.update(slope, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
