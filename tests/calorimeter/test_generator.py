"""From normal deviates to showers: energies are shared exactly, whatever the network says."""

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = jax.numpy

from physml.calorimeter import features, generator  # noqa: E402
from physml.calorimeter import geometry as geometries  # noqa: E402
from physml.calorimeter.events import select  # noqa: E402
from physml.calorimeter.objective import chi2, networks, objective, sampler  # noqa: E402
from physml.calorimeter.simulate import simulate  # noqa: E402
from physml.errors import ConfigError  # noqa: E402
from physml.options import Adversarial  # noqa: E402
from physml.train import fit  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")
GEOMETRY = geometries.dataset_1_photons()
ENERGIES = 256.0 * 2.0 ** np.arange(15)
SHARE = jax.jit(generator.share)  # compiled whole, which is quicker than each operation


@pytest.fixture(scope="module")
def showers():
    return simulate((5,), np.repeat(ENERGIES, 60), GEOMETRY)


def split(showers):
    energy = showers.incident_energy.astype(np.float32)
    return {"energy": energy, "deposits": showers.deposits}


@pytest.fixture(scope="module")
def begun(showers):
    nets = networks(GEOMETRY, (16,), (16,))
    game = objective(nets, GEOMETRY, Adversarial(steps=2, batch_size=16))
    return nets, game, game.init(jax.random.PRNGKey(1), split(showers))


@pytest.mark.parametrize("total", [0.0, 0.5, 3.0, 700.0, 4e6])
def test_parts_are_empty_or_above_the_threshold_and_make_up_the_total(total):
    rng = np.random.default_rng(0)
    weights = jnp.asarray(np.exp(rng.normal(0, 4, (50, 30))), jnp.float32)
    parts, gates = (np.asarray(x) for x in SHARE(jnp.full(50, total), weights, 1.0))
    kept = total if total >= 1 else 0.0
    np.testing.assert_allclose(parts.sum(axis=1), kept, rtol=1e-6)
    assert ((parts == 0) | (parts >= 1.0 - 1e-6)).all()
    np.testing.assert_array_equal(parts > 0, gates > 0.5)
    order = np.take_along_axis(parts, np.argsort(np.asarray(weights), axis=1), axis=1)
    assert (np.diff(order, axis=1) >= 0).all()  # a heavier weight never gets less


def test_the_largest_takes_all_where_each_part_is_too_small():
    weights = np.where(np.arange(10) == 3, 1.1, 1.0)[None].astype(np.float32)
    parts = np.asarray(SHARE(jnp.array([2.0]), weights, 1.0)[0])
    assert parts[0, 3] == 2.0 and parts.sum() == 2.0


def test_empty_parts_have_a_gradient():
    """A weight too small to open its gate still feels what would happen if it grew."""

    def first_gate(weights):
        return generator.share(jnp.array([10.0]), weights, 1.0)[1][0, 0]

    slope = jax.jit(jax.grad(first_gate))(jnp.array([[0.08, 0.5, 0.42]]))
    assert slope[0, 0] > 0


def test_whitened_training_showers_have_mean_0_and_width_1(showers):
    scale = generator.fit_scale(showers, GEOMETRY)
    grid = generator.grid(GEOMETRY)
    told = jax.jit(lambda energy, layers: generator.told(scale, grid, energy, layers))
    assert len(scale.voxels.mean) == 15  # a knot at each energy of the set
    for energy in ENERGIES[[0, 7, 14]]:
        rows = select(showers, showers.incident_energy == energy)
        layers = np.stack([rows.deposits[:, s].sum(axis=1) for s in grid.slices], axis=1)
        energies = np.full(len(layers), energy, np.float32)
        white = np.asarray(told(energies, layers))[:, 16:]
        np.testing.assert_allclose(white.mean(axis=0), 0, atol=2e-3)
        wide = np.log1p(layers).std(axis=0) > 0.05
        np.testing.assert_allclose(white[:, 1:].std(axis=0)[wide], 1, rtol=2e-3)


def test_between_two_energies_tables_are_drawn_as_lines(showers):
    scale = generator.fit_scale(showers, GEOMETRY)
    weights = np.asarray(generator.knot_weights(scale, jnp.array([256.0 * 2**2.25, 10.0, 1e9])))
    np.testing.assert_allclose(weights[0, [2, 3]], [0.75, 0.25], atol=1e-4)
    assert weights[1, 0] == 1 and weights[2, -1] == 1
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_shapes_are_those_of_the_challenges_features(showers):
    grid = generator.grid(GEOMETRY)
    gates = jnp.asarray((showers.deposits > 0).astype(np.float32))
    found = np.asarray(generator.shapes(grid, jnp.asarray(showers.deposits), gates))
    wanted = features(showers, GEOMETRY)
    # Layer 1 stands behind layer 0's centre, width and hits; extents 600, 200 and 400 mm.
    hit = showers.deposits[:, grid.slices[1]].any(axis=1)
    np.testing.assert_allclose(found[hit, 3] * 200, wanted["centre_eta"][hit, 0], atol=0.02)
    np.testing.assert_allclose(found[hit, 6] * 200, wanted["width_phi"][hit, 0], atol=0.05)
    np.testing.assert_allclose(found[hit, 8] * 200, wanted["width_r"][hit, 1], atol=0.05)
    sparsity = 1 - np.expm1(found[:, 9]) / 160
    np.testing.assert_allclose(sparsity, wanted["sparsity"][:, 1], atol=1e-5)


def test_a_generated_shower_holds_what_its_head_says(begun):
    nets, _, state = begun
    grid, scale = generator.grid(GEOMETRY), state.params["scale"]
    energy = jnp.asarray(np.repeat(ENERGIES, 4), jnp.float32)
    head, body = generator.latents(jax.random.PRNGKey(3), len(energy), grid)
    weights, net = state.params["generator"], nets.generator

    @jax.jit
    def both(weights, head, body):
        layers = generator.layer_energies(net, weights, scale, grid, head, energy)
        return layers, generator.from_latents(net, weights, scale, grid, head, body, energy)

    layers, made = both(weights, head, body)
    np.testing.assert_allclose(generator.sums(grid, made), layers, rtol=2e-6)
    assert ((np.asarray(made) == 0) | (np.asarray(made) >= 1 - 1e-6)).all()


def test_a_layer_of_empty_voxels_gives_its_energy_to_the_least_empty(begun):
    """A net that calls every voxel empty: its favourite takes all, not each the same."""
    _, _, state = begun
    grid, scale = generator.grid(GEOMETRY), state.params["scale"]
    energy = jnp.full(1, 1024.0)
    weights = generator.knot_weights(scale, energy)
    wanted = -0.5 * jnp.ones((1, GEOMETRY.size)).at[0, 3].set(0.6)

    class Empty:
        def apply(self, *_, **__):
            return generator.whiten(scale.voxels, weights, wanted)

    layers = jnp.full((1, 5), 50.0)
    latent = jnp.zeros((1, generator.LATENT + GEOMETRY.size))
    voxels = jax.jit(partial(generator.voxels, Empty(), None, scale, grid))
    made = np.asarray(voxels(latent, energy, layers)[0])
    np.testing.assert_allclose(made[0, 3], 50.0, rtol=1e-6)
    assert np.count_nonzero(made[0, :8]) == 1


def test_the_first_showers_are_the_same_however_many_follow(begun):
    nets, _, state = begun
    make = sampler(nets.generator, GEOMETRY, block=32)
    one = make(state.params, ENERGIES.repeat(5), (1, 2))
    again = make(state.params, ENERGIES.repeat(5)[:40], (1, 2))
    np.testing.assert_array_equal(one.deposits[:40], again.deposits)
    other = make(state.params, ENERGIES.repeat(5)[:40], (1, 3))
    assert (other.deposits != again.deposits).any()


def test_one_energy_cannot_be_trained_on():
    with pytest.raises(ConfigError, match="range of energies"):
        generator.fit_scale(simulate(0, np.full(5, 1e3), GEOMETRY), GEOMETRY)


def test_chi2_is_about_1_for_two_draws_and_large_for_others(showers):
    other = simulate((6,), np.repeat(ENERGIES, 60), GEOMETRY)
    assert 0.8 < chi2(showers, other, GEOMETRY)["chi2"] < 1.25
    wrong = other._replace(deposits=other.deposits * np.float32(1.05))
    assert chi2(showers, wrong, GEOMETRY)["chi2_response"] > 3


def test_training_lowers_the_chi2(showers):
    nets = networks(GEOMETRY, (48,), (48, 48))
    options = Adversarial(steps=150, batch_size=64, critic_rate=1e-3, generator_rate=1e-3)
    game = objective(nets, GEOMETRY, options)
    rows = split(showers)
    before = game.evaluate(game.init(jax.random.PRNGKey(0), rows), rows)["chi2"]
    after = game.evaluate(fit(game, {"train": rows}, 0).state, rows)["chi2"]
    assert after < 0.6 * before


def test_the_generator_moves_on_its_turn_only(begun, showers):
    nets, _, state = begun
    game = objective(nets, GEOMETRY, Adversarial(steps=9, batch_size=16, critic_steps=3))
    batch = {name: array[::60] for name, array in split(showers).items()}
    step = jax.jit(game.step)
    states = [state]
    for _ in range(4):
        states.append(step(states[-1], batch)[0])

    def moved(name, k):
        pairs = zip(*(jax.tree.leaves(s.params[name]) for s in states[k : k + 2]), strict=True)
        return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)

    assert [moved("generator", k) for k in range(4)] == [True, False, False, True]
    assert all(moved("critic", k) for k in range(4))
    assert not any(moved("scale", k) for k in range(4))
