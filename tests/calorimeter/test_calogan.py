"""CaloGAN's networks against its published sizes and formulas in NumPy; a few steps of its game."""

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp, nn = jax.numpy, pytest.importorskip("flax.linen")

from physml.calorimeter import calogan, nets  # noqa: E402
from physml.calorimeter import geometry as geometries  # noqa: E402
from physml.options import Adversarial  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")
EDGES = [np.linspace(-10, 10, n + 1) for n in range(9)]
TINY = geometries.Geometry(
    (geometries.cell_layer(0, EDGES[2], EDGES[4]), geometries.cell_layer(1, EDGES[3], EDGES[2]))
)
RNG = np.random.default_rng(0)


def sizes(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_the_generator_has_the_size_of_the_published_one():
    """By hand from the layers of github hep-lbdl/CaloGAN; 29.7 million."""
    dense, local, last, attention = 0, 0, 0, 0
    for rows, columns in ((3, 96), (12, 12), (12, 6)):
        dense += (1024 + 1) * (rows + 2) * (columns + 2) * 36
        local += (rows + 1) * (columns + 1) * (2 * 2 * 16 + 1) * 6
        last += rows * columns * 2 * 2 * 6
        attention += rows * columns * (3 * 3 * 2 + 1) * 2 if rows == 12 else 0
    small = 3 * ((2 * 2 * 36 + 1) * 16 + 4 * 16)  # convolutions; normalisation of batches
    players = calogan.networks(geometries.calogan())
    given = jnp.zeros((2, calogan.LATENT)), jnp.ones(2), True
    found = jax.eval_shape(
        lambda key: players.generator.init(key, *given[:2], True), jax.random.PRNGKey(0)
    )
    assert sizes(found) == dense + local + last + attention + small == 29_726_376
    assert sizes(found["batch_stats"]) == 96
    assert found["params"]["Dense_0"]["kernel"].shape == (1024, 5 * 98 * 36)


def test_the_discriminator_sees_all_that_the_published_one_sees():
    """Width of its last layer: images, minibatch features, shares of hits, energies."""
    players = calogan.networks(geometries.calogan())
    shapes = jax.eval_shape(
        players.critic.init, jax.random.PRNGKey(0), jnp.ones((2, 504)), jnp.ones(2)
    )["params"]
    # Columns halve twice, and grow by one where kernels of 2 meet edges of 0.
    flat = 8 * ((3 + 2) * 25 + (12 + 2) * 4 + (12 + 2) * 3)
    assert shapes["Dense_0"]["kernel"].shape == (flat + 3 * (10 + 1 + 10) + 3 + 1 + 1 + 1 + 10, 1)
    assert shapes["MinibatchDiscrimination_0"]["kernel"].shape == (10, 8 * 5 * 25, 10)
    assert shapes["Conv_0"]["kernel"].shape == (2, 2, 1, 64)


def test_minibatch_discrimination_is_its_formula():
    layer, x = nets.MinibatchDiscrimination(3, 4), RNG.normal(size=(6, 5)).astype(np.float32)
    variables = layer.init(jax.random.PRNGKey(1), x)
    kernel, bias = (np.asarray(variables["params"][k], np.float64) for k in ("kernel", "bias"))
    bias = bias + 0.1 * RNG.normal(size=bias.shape)
    expected = np.zeros((6, 3))
    for row in range(6):
        for other in range(6):
            for feature in range(3):
                a, b = (x[k] @ kernel[feature] + bias[feature] for k in (row, other))
                expected[row, feature] += np.exp(-np.abs(a - b).sum())
    given = {"params": {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}}
    np.testing.assert_allclose(layer.apply(given, x), np.tanh(expected), rtol=2e-5)


def test_locally_connected_layers_have_a_kernel_of_their_own_at_each_cell():
    """Zeros around, steps of 2 along columns, as in the discriminator; against loops."""
    layer = nn.ConvLocal(3, (2, 2), (1, 2), 1)
    x = RNG.normal(size=(2, 3, 5, 2)).astype(np.float32)
    variables = layer.init(jax.random.PRNGKey(2), x)["params"]
    kernel, bias = np.asarray(variables["kernel"]), RNG.normal(size=(4, 3, 3)).astype(np.float32)
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 4, 3, 3))
    for row in range(4):
        for column in range(3):
            patch = wide[:, row : row + 2, 2 * column : 2 * column + 2]
            flat = patch.transpose(0, 3, 1, 2).reshape(2, -1)  # channels slowest
            expected[:, row, column] = flat @ kernel[row, column] + bias[row, column]
    found = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_images_are_brought_to_other_cells_by_area():
    image = RNG.normal(size=(2, 3, 96, 1)).astype(np.float32)
    published = image.repeat(4, axis=1).reshape(2, 12, 12, 8, 1).mean(axis=3)
    np.testing.assert_allclose(nets.resized(image, 12, 12), published, atol=1e-6)
    other = nets.resized(image, 5, 19)  # no multiple: the mean stays
    np.testing.assert_allclose(other.mean(axis=(1, 2)), image.mean(axis=(1, 2)), atol=1e-6)


@pytest.fixture(scope="module")
def rows():
    energy = RNG.uniform(1e3, 1e5, 64).astype(np.float32)
    shares = RNG.gamma(0.5, size=(64, TINY.size))
    shares[:, ::3] = 0
    deposits = energy[:, None] * shares / shares.sum(axis=1, keepdims=True)
    return {"energy": energy, "deposits": deposits.astype(np.float32)}


def drawn(init):
    """A first state whose weights are drawn by NumPy: to compile so many draws takes a minute."""
    state = jax.eval_shape(init, jax.random.PRNGKey(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    draw = lambda leaf: RNG.normal(0, 0.1, leaf.shape).astype(leaf.dtype)
    params = jax.tree.map(draw, state.params)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), state.params["statistics"])
    return zeros._replace(params=params | {"statistics": ones}, key=jax.random.PRNGKey(0))


def test_the_game_moves_both_players_and_the_deposits_towards_the_energy(rows):
    players = calogan.networks(TINY)
    rate = 5e-3  # far above the published ones: 12 steps have to show something
    options = Adversarial(
        steps=12, batch_size=32, critic_rate=rate, generator_rate=rate, memory=0.999
    )
    game = calogan.objective(players, TINY, options)
    state = drawn(partial(game.init, train=rows))
    before, step, metrics = state.params, jax.jit(game.step), []
    batch = {name: array[:32] for name, array in rows.items()}
    for _ in range(12):
        state, found = step(state, batch)
        metrics.append(jax.device_get(found))
    assert all(np.isfinite(list(found.values())).all() for found in metrics)
    assert metrics[-1]["apart_gev"] < 0.9 * metrics[0]["apart_gev"]
    after = jax.device_get(state.params)
    for name in ("generator", "critic", "statistics"):
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), before[name], after[name])
        still = [str(path) for path, yes in jax.tree.leaves_with_path(moved) if not yes]
        # Far apart in a batch no row is near another; a bias never matters to what is apart.
        assert not [path for path in still if "MinibatchDiscrimination" not in path], name
    showers = calogan.sampler(players.generator, TINY, 8)(state.params, rows["energy"][:20], (3,))
    assert showers.deposits.shape == (20, TINY.size) and (showers.deposits >= 0).all()
    assert (showers.deposits > 0).any()
