"""AFS against the definition, quippy, extended precision and the symmetries it must have."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from physml.atoms import descriptors
from physml.atoms.defects import bcc
from physml.atoms.descriptors import Form, afs, afs_of_vectors, afs_sum
from physml.errors import ConfigError, DataError


@pytest.fixture
def iron54():
    """53 atoms of shaken bcc iron around a vacancy, in a skewed cell."""
    atoms = bcc(3)
    atoms.rattle(0.1, seed=1)
    skew = atoms.cell.array @ [[1, 0.1, 0], [0.2, 1, 0.1], [0, 0, 1.1]]
    atoms.set_cell(skew, scale_atoms=True)
    del atoms[5]
    return atoms


@functools.cache
def exact_root(n_max):
    """S^(-1/2) with 100 digits, by eigenvalues."""
    with mpmath.workdps(100):
        size = range(1, n_max + 1)
        overlap = mpmath.matrix(
            [[mpmath.sqrt((5 + 2 * a) * (5 + 2 * b)) / (5 + a + b) for b in size] for a in size]
        )
        values, vectors = mpmath.eigsy(overlap)
        return vectors * mpmath.diag([1 / mpmath.sqrt(v) for v in values]) * vectors.T


def exact_radial(r, n_max, cutoff):
    """g(r) = S^(-1/2) phi(r) from its definition, with 100 digits."""
    with mpmath.workdps(100):
        rc = mpmath.mpf(cutoff)
        powers = [
            [
                mpmath.sqrt(2 * a + 5) / rc ** (a + mpmath.mpf(5) / 2) * (rc - x) ** (a + 2)
                for x in map(mpmath.mpf, r)
            ]
            for a in range(1, n_max + 1)
        ]
        return np.array((exact_root(n_max) * mpmath.matrix(powers)).tolist(), dtype=float)


def definition(vectors, n_max, l_max, cutoff, tensor=False):
    """The double sum over pairs j < k of one atom, with angles; distances below the cutoff."""
    r = np.linalg.norm(vectors, axis=1)
    g = exact_radial(r, n_max, cutoff)
    unit = vectors / r[:, None]
    pairs = [(n, m) for n in range(n_max) for m in range(n if tensor else n, n_max)]
    pairs = pairs if tensor else [(n, n) for n in range(n_max)]
    out = np.zeros((len(pairs), l_max + 1))
    for j, k in itertools.combinations(range(len(r)), 2):
        angle = np.arccos(np.clip(unit[j] @ unit[k], -1, 1))
        for row, (n, m) in enumerate(pairs):
            product = 0.5 * (g[n, j] * g[m, k] + g[m, j] * g[n, k])
            out[row] += product * np.cos(np.arange(l_max + 1) * angle)
    return out.ravel()


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize(
    ("n_max", "l_max", "cutoff", "tensor", "bound"),
    [
        (1, 0, 4.0, False, 1e-12),
        (3, 10, 4.2, False, 1e-12),
        (5, 3, 4.2, True, 1e-12),
        (20, 10, 4.2, False, 1e-12),  # 1e-8 is promised
        (2, 30, 4.2, False, 1e-10),
    ],
)
def test_equals_the_definition_in_extended_precision(iron54, n_max, l_max, cutoff, tensor, bound):
    """ASE's neighbours, 100-digit radial functions and plain angles give the same numbers."""
    i, vectors = neighbor_list("iD", iron54, cutoff)
    ours = afs(iron54, n_max, l_max, cutoff, tensor=tensor)
    for atom in (0, 30):
        theirs = definition(vectors[i == atom], n_max, l_max, cutoff, tensor)
        assert relative(ours[atom], theirs) < bound


@pytest.mark.parametrize("cutoff", [2.6, 5.0])
@pytest.mark.parametrize(("n_max", "bound"), [(1, 1e-13), (3, 1e-10), (4, 2e-10), (5, 1e-8)])
def test_equals_quippy(iron54, n_max, bound, cutoff):
    """Same numbers, same column order. Beyond n_max = 3 quippy's own float64 root sets the bound.

    The test above holds our values to 1e-12 of the exact ones, at n_max = 5 and 20 too.
    """
    quippy = pytest.importorskip("quippy.descriptors")
    options = f"l_max=10 n_max={n_max} cutoff={cutoff} n_species=1 Z=26 species_Z={{26}} w=1.0"
    theirs = np.asarray(quippy.Descriptor(f"cosnx {options}").calc(iron54)["data"])
    assert relative(afs(iron54, n_max, cutoff=cutoff), theirs) < bound


def test_cell_shorter_than_the_cutoff_counts_every_image():
    """One atom in a skewed primitive cell sees the same as one in a large crystal."""
    large = afs(bcc(5))[0]
    assert relative(afs(bcc(1))[0], large) < 1e-13
    skewed = 2.8553 * np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [-1.5, 2.5, 2.5]])
    single = Atoms("Fe", cell=skewed, pbc=True)
    assert relative(afs(single)[0], large) < 1e-12


def test_invariances(iron54):
    """Rotation and translation change nothing; a permutation permutes the rows."""
    rows = afs(iron54, tensor=True, two_body=True)
    turned = iron54.copy()
    turned.rotate(37.0, (1, 2, 3), rotate_cell=True)
    assert relative(afs(turned, tensor=True, two_body=True), rows) < 1e-12
    moved = iron54.copy()
    moved.positions += [1.3, -40.7, 8.1]
    assert relative(afs(moved, tensor=True, two_body=True), rows) < 1e-12
    order = np.random.default_rng(0).permutation(len(iron54))
    assert relative(afs(iron54[order], tensor=True, two_body=True), rows[order]) < 1e-13


def test_supercell_doubles_the_sum(iron54):
    """Twice the crystal is twice the sum, and the sum is that of the rows."""
    total = afs_sum(iron54)
    assert relative(afs_sum(iron54.repeat((1, 2, 1))), 2 * total) < 1e-13
    assert relative(afs(iron54).sum(axis=0), total) < 1e-13


def test_forms_share_their_columns(iron54):
    """The diagonal of the tensor is the plain form; two-body columns sum the radial functions."""
    plain, tensor = afs(iron54), afs(iron54, tensor=True, two_body=True)
    blocks = tensor[:, :-3].reshape(-1, 6, 11)
    assert relative(blocks[:, [0, 3, 5]].reshape(-1, 33), plain) < 1e-14
    i, r = neighbor_list("id", iron54, 5.0)
    assert relative(tensor[4, -3:], exact_radial(r[i == 4], 3, 5.0).sum(axis=1)) < 1e-12


def test_blocks_give_the_rows_of_one_table(iron54, monkeypatch):
    """Cutting a structure into bricks with halos changes nothing, down to bricks of few atoms."""
    thin = bcc(1).repeat((40, 1, 1))
    thin.rattle(0.1, seed=2)
    cluster = bcc(4)
    cluster.set_cell(np.diag([60.0, 12.0, 90.0]))  # vacuum around most of it
    whole = [afs(atoms) for atoms in (iron54, thin, cluster)]
    monkeypatch.setattr(descriptors, "BLOCK", 16)
    for atoms, rows in zip((iron54, thin, cluster), whole, strict=True):
        assert relative(afs(atoms), rows) < 1e-12
        assert relative(afs_sum(atoms), rows.sum(axis=0)) < 1e-12


def test_bricks_name_coincident_atoms(monkeypatch):
    """The two atoms are named by their place in the structure."""
    monkeypatch.setattr(descriptors, "BLOCK", 16)
    atoms = bcc(3)
    atoms.positions[40] = atoms.positions[7] + [1e-5, 0, 0]
    with pytest.raises(DataError, match=r"atoms (7 and 40|40 and 7) coincide"):
        afs(atoms)


def test_one_compilation_serves_all_sizes():
    """Structures of any size with neighbour counts in one bucket share a compiled kernel."""
    afs(bcc(4), 2, 5, 4.5)
    before = descriptors._slab_rows._cache_size()
    for atoms in (bcc(3), bcc(4)[5:], bcc(9)):
        afs(atoms, 2, 5, 4.5)
    afs(bcc(3), 2, 5, 4.6)
    assert descriptors._slab_rows._cache_size() == before


@pytest.mark.parametrize("x64", [False, True])
def test_float64_whatever_the_flag(x64):
    """The host entry computes in float64 and leaves the caller's setting alone."""
    with jax.enable_x64(x64):
        rows = afs(bcc(2))
        assert jnp.zeros(1).dtype == (jnp.float64 if x64 else jnp.float32)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, afs(bcc(2)))


def test_isolated_atoms_and_pairs_are_zero():
    """No neighbour, no number; one neighbour makes no pair."""
    lone = Atoms("Fe", cell=[20, 20, 20], pbc=True)
    assert not afs(lone, two_body=True).any()
    pair = Atoms("Fe2", positions=[[0, 0, 0], [0, 1, 2]], cell=[20, 20, 20], pbc=True)
    assert np.abs(afs(pair)).max() < 1e-14


STAR = np.array(
    [[0, 0, 2.1], [0, 0, -2.5], [0, 0, 3.0], [2.2, 0, 0], [-1.4, 1.5, 1.1], [-2.8, 3.0, 2.2]]
)  # opposite, parallel and scaled neighbours: angles 0 and pi, also along the polar axis


@pytest.mark.parametrize("form", [Form(3, 10), Form(2, 4, tensor=True, two_body=True), Form(8, 1)])
def test_gradients_at_collinear_neighbours(form):
    """Both modes agree with finite differences where an arccos has no derivative."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        weights, direction = rng.normal(size=form.columns), rng.normal(size=STAR.shape)
        function = jax.jit(lambda v: weights @ afs_of_vectors(v, np.ones(len(v), bool), form))
        reverse = np.vdot(jax.jit(jax.grad(function))(STAR), direction)
        forward = jax.jit(lambda v, d: jax.jvp(function, (v,), (d,))[1])(STAR, direction)
        step = 1e-5 * direction
        numeric = (function(STAR + step) - function(STAR - step)) / 2e-5
    np.testing.assert_allclose([reverse, forward], numeric, rtol=1e-6)
    np.testing.assert_allclose(reverse, forward, rtol=1e-12)


def test_padding_changes_neither_values_nor_gradients():
    """Masked entries, zero vectors and NaN included, have no influence and a zero gradient."""
    with jax.enable_x64(True):
        padding = np.array([[0, 0, 0], [np.nan, 0, 0], [1.0, 2.0, 0.5]])
        padded = jnp.asarray(np.concatenate([STAR, padding]))
        mask = np.arange(9) < 6

        def total(v, mask):
            return jnp.sum(jnp.sin(afs_of_vectors(v, mask)))

        value, slope = jax.jit(jax.value_and_grad(total))(padded, mask)
        bare, bare_slope = jax.jit(jax.value_and_grad(total))(jnp.asarray(STAR), mask[:6])
        np.testing.assert_allclose(value, bare, rtol=1e-13)
        np.testing.assert_allclose(slope[:6], bare_slope, rtol=1e-10, atol=1e-12)
        assert not slope[6:].any()


def test_vmap_and_single_precision():
    """Batches may be mapped or leading axes; float32 in gives float32 out, near the float64."""
    vectors = np.stack([STAR, STAR[::-1], -STAR]).astype(np.float32)
    mask = np.ones((3, 6), bool)
    mapped = jax.jit(jax.vmap(afs_of_vectors))(vectors, mask)
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, jax.jit(afs_of_vectors)(vectors, mask), atol=1e-6)
    assert relative(mapped[0], definition(STAR, 3, 10, 5.0)) < 1e-5


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"n_max": 0}, "n_max"),
        ({"n_max": 21}, "n_max"),
        ({"n_max": 2.5}, "n_max"),
        ({"l_max": -1}, "l_max"),
        ({"l_max": 31}, "l_max"),
        ({"cutoff": 0.0}, "cutoff"),
        ({"cutoff": np.nan}, "cutoff"),
        ({"cutoff": np.inf}, "cutoff"),
    ],
)
@pytest.mark.parametrize("function", [afs, afs_sum])
def test_bad_options_are_refused(function, options, name):
    """One line that names the option."""
    with pytest.raises(ConfigError, match=name) as caught:
        function(bcc(2), **options)
    assert "\n" not in str(caught.value)


def test_bad_structures_are_refused():
    """NaN positions and a missing cell are named, with the structure."""
    atoms = bcc(2)
    atoms.positions[3, 1] = np.nan
    with pytest.raises(DataError, match="my file: position of atom 3"):
        afs(atoms, where="my file")
    with pytest.raises(DataError, match="periodic"):
        afs(Atoms("Fe"))
