"""Readers and writers: each form written by plain h5py, real samples, round trips, bad input."""

import h5py
import numpy as np
import pytest

from physml.calorimeter import geometry, readers, writers
from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import Geometry, cell_layer, polar_layer
from physml.errors import ConfigError, DataError
from physml.io import hdf5, root
from physml.io.manifest import sha256

GRID = geometry.dataset_1_photons()
PLANES = geometry.calogan()
SMALL = Geometry((cell_layer(0, range(3), range(6)), cell_layer(1, range(4), range(4))))
N = 40


@pytest.fixture(scope="module")
def showers():
    """Showers that fill their layers, 1 to 100 GeV."""
    random = np.random.default_rng(0)
    return made(random, GRID)


def made(random, grid, n=N):
    deposits = random.exponential(1, (n, grid.size)) * (random.random((n, grid.size)) < 0.5)
    energy = 10 ** random.uniform(3, 5, n)
    deposits *= (0.9 * energy / deposits.sum(axis=1))[:, None]
    deposits[deposits < grid.threshold] = 0
    return Showers(energy, deposits.astype(np.float32))


@pytest.fixture
def write(tmp_path):
    """Write datasets with plain h5py, packed as the challenge's are."""

    def write(name="showers.hdf5", **arrays):
        with h5py.File(tmp_path / name, "w") as file:
            for key, values in arrays.items():
                file.create_dataset(key, data=values, compression="gzip")
        return tmp_path / name

    return write


def challenge(made, **changes):
    energy, deposits = made
    return {"incident_energies": energy[:, None], "showers": deposits.astype(np.float64)} | changes


def same(found, showers):
    np.testing.assert_allclose(found.incident_energy, showers.incident_energy, rtol=1e-12)
    np.testing.assert_array_equal(found.deposits, showers.deposits)
    assert found.incident_energy.dtype == np.float64 and found.deposits.dtype == np.float32


def test_challenge_files_are_read(write, showers):
    found = readers.read(write(**challenge(showers)), GRID)
    same(found.showers, showers)
    assert found.overflow.shape == (N, 0)


def test_blocks_and_ranges_join_to_the_whole(write, showers):
    path = write(**challenge(showers))
    parts = [part.showers for part in readers.iterate(path, GRID, step=7)]
    assert [len(part.incident_energy) for part in parts] == [7] * 5 + [5]
    same(Showers(*(np.concatenate(column) for column in zip(*parts, strict=True))), showers)
    same(
        readers.read(path, GRID, rows=(3, 9)).showers, Showers(*(column[3:9] for column in showers))
    )


def test_blocks_hold_no_more_than_asked(write, showers):
    path = write(**challenge(showers))
    limit = 10 * (GRID.size + 1) * 8
    sizes = [len(p.overflow) for p in readers.iterate(path, GRID, max_bytes=limit)]
    assert sizes == [10] * 4
    with pytest.raises(DataError, match="over the limit"):
        next(readers.iterate(path, GRID, step=30, max_bytes=limit))
    with pytest.raises(DataError, match="GB of deposits"):
        readers.read(path, GRID, max_bytes=1000)
    for step in (0, -1):
        with pytest.raises(ConfigError, match="1 shower or more"):
            next(readers.iterate(path, GRID, step=step))


@pytest.mark.parametrize("columns", [1, 3, None])
def test_calogan_files_are_read(write, columns):
    random = np.random.default_rng(1)
    shapes = ((3, 96), (12, 12), (12, 6))
    layers = {f"layer_{k}": random.exponential(20, (N, *s)) for k, s in enumerate(shapes)}
    energy = random.uniform(10, 20, (N, 1))
    beside = {} if columns is None else {"overflow": random.exponential(9, (N, columns))}
    found = readers.read(write(**layers, **beside, energy=energy), PLANES)
    np.testing.assert_allclose(found.showers.incident_energy, 1e3 * energy[:, 0])
    assert found.showers.deposits[5, 96 + 7] == np.float32(layers["layer_0"][5, 1, 7])
    assert found.showers.deposits[5, 288 + 144 + 6 * 11 + 2] == np.float32(
        layers["layer_2"][5, 11, 2]
    )
    assert found.overflow.shape == (N, columns or 0)


def test_real_samples_are_read_whole(shared_data, capsys):
    """Counts, energies and lateral symmetry of the Geant4 samples; nothing odd is said of them."""
    planes = readers.read(shared_data / "calo/geant4_calogan_electrons.hdf5", PLANES)
    rings = readers.read(shared_data / "calo/geant4_ds2like_electrons.hdf5", geometry.dataset_2())
    assert not capsys.readouterr().err
    for found, n in ((planes, 360), (rings, 275)):
        energy = found.showers.incident_energy
        assert len(energy) == n and energy.min() > 1e3 and energy.max() < 1e5
    total = planes.showers.deposits.sum(axis=1, dtype=float) + planes.overflow.sum(axis=1)
    contained = total / planes.showers.incident_energy
    assert 0.97 < contained.min() and contained.max() < 1.001  # energy is conserved
    mean = planes.showers.deposits[:, 288:432].mean(axis=0).reshape(12, 12)
    assert mean[5:7, 5:7].sum() > 0.75 * mean.sum()  # the beam hits the middle of 12 x 12


@pytest.mark.parametrize(
    "make, size",
    [
        (geometry.dataset_1_photons, 368),
        (geometry.dataset_1_pions, 533),
        (geometry.dataset_2, 6480),
        (geometry.dataset_3, 40500),
    ],
)
def test_what_is_written_is_what_the_challenge_reads(tmp_path, make, size):
    """Keys, shapes, kinds and numbers as its evaluation takes them: through plain h5py.

    CaloChallenge/homepage, code/evaluate.py: as many rows in both, one column of incident energies,
    as many voxels as the binning file has; it joins log10 of the energies and 100 times the shares
    to one table without any conversion.
    """
    grid = make()
    showers = made(np.random.default_rng(2), grid, 3)
    writers.write_challenge(tmp_path / "new/made.hdf5", showers, grid, {"seed": 5})
    with h5py.File(tmp_path / "new/made.hdf5") as file:
        assert sorted(file) == ["incident_energies", "showers"]
        assert file["showers"].compression == "gzip" and file["showers"].fletcher32
        np.testing.assert_array_equal(
            file["incident_energies"][:], showers.incident_energy[:, None]
        )
        np.testing.assert_array_equal(file["showers"][:], showers.deposits)
        assert file.attrs["seed"] == 5
        energy, voxels = file["incident_energies"][:], file["showers"][:]
    assert (energy.dtype, voxels.dtype) == (np.float64, np.float32)
    assert energy.shape == (3, 1) and voxels.shape == (3, size)
    table = np.concatenate([np.log10(energy), 100 * voxels / energy], axis=1)
    assert table.shape == (3, 1 + grid.size) and np.isfinite(table).all()
    assert 80 < table[:, 1:].sum(axis=1).min() and table[:, 1:].sum(axis=1).max() < 91
    assert (table[:, 0] >= 3).all()  # MeV
    same(readers.read(tmp_path / "new/made.hdf5", grid).showers, showers)


@pytest.mark.parametrize("write", [writers.write_calogan, writers.write_cells])
def test_calogan_forms_come_back(tmp_path, write):
    """Small planes: a tree of 507 branches takes the library seconds."""
    showers = made(np.random.default_rng(3), SMALL)
    beside = np.random.default_rng(4).exponential(5, (N, 2)).astype(np.float32)
    write(tmp_path / "made", showers, SMALL, beside)
    found = readers.read(tmp_path / "made", SMALL)
    same(found.showers, showers)
    np.testing.assert_array_equal(found.overflow, beside)
    write(tmp_path / "made", showers, SMALL)  # replaced
    assert readers.read(tmp_path / "made", SMALL).overflow.tolist() == [[0.0] * 2] * N


def test_trees_have_the_branches_of_calogan(tmp_path):
    writers.write_cells(tmp_path / "a.root", made(np.random.default_rng(3), SMALL), SMALL)
    names = root.describe(tmp_path / "a.root", "fancy_tree")
    assert set(names) == {f"cell_{k}" for k in range(SMALL.size + 2)} | {"TotalEnergy"}


@pytest.fixture
def hits(tmp_path):
    """Three showers of 2, 0 and 3 hits in a calorimeter of two layers."""
    grid = Geometry((polar_layer(0, 2, [0, 1, 2]), polar_layer(1, 1, [0, 5])))
    offsets = np.array([0, 2, 2, 5])

    def write(cell=(4, 4, 0, 3, 9), deposit=(0.2, 0.3, 0.1, 0.2, 0.4), other=None):
        columns = {
            "energy": np.array([1.0, 1.0, 2.0]),
            "cell": root.Jagged(np.array(cell), offsets),
            "deposit": root.Jagged(np.array(deposit), offsets if other is None else other),
        }
        root.write(tmp_path / "hits.root", "hits", columns, overwrite=True)
        return tmp_path / "hits.root"

    return grid, write


def test_hits_are_summed_in_their_voxels(hits, capsys):
    """Units GeV; cell 9 lies beside the voxels, cell 3 belongs to voxel 2."""
    grid, write = hits
    voxel = np.array([0, 1, 3, 2, 4, -1, -1, -1, -1, -1])
    columns = readers.HitColumns("energy", "cell", "deposit", voxel, 1e3, 1e3)
    found = readers.read(write(), grid, hits=columns)
    assert "1 of 3 showers hold no energy (the first in row 1)" in capsys.readouterr().err
    expected = [[0, 0, 0, 0, 500], [0] * 5, [100, 0, 200, 0, 0]]
    np.testing.assert_allclose(found.showers.deposits, expected, rtol=1e-6)
    np.testing.assert_allclose(found.overflow, [[0], [0], [400]], rtol=1e-6)
    assert found.showers.incident_energy.tolist() == [1e3, 1e3, 2e3]


ZERO = (0,) * 5


@pytest.mark.parametrize(
    "file, change, said",
    [
        ({}, {}, "names cell 9"),
        ({"cell": (0, 1, 2, -1, 0)}, {}, "names cell -1"),
        ({"cell": (0, 1, 2, 0.5, 0)}, {}, "names cell 0.5"),
        ({"cell": ZERO, "deposit": (1, -0.5, 1, 1, 1)}, {}, "deposits -500 MeV"),
        ({"cell": ZERO}, {"voxel": np.array([7])}, "leads out of the geometry"),
        ({"cell": ZERO}, {"cell": "energy"}, "no lists"),
        ({"cell": ZERO, "other": np.array([0, 1, 2, 5])}, {}, "differ in length"),
    ],
)
def test_bad_hits_are_refused(hits, file, change, said):
    grid, write = hits
    columns = readers.HitColumns("energy", "cell", "deposit", None, 1e3, 1e3)
    refused(write(**file), said, grid, hits=columns._replace(**change))


def refused(path, said, grid=GRID, **options):
    with pytest.raises(DataError, match=said) as caught:
        readers.read(path, grid, **options)
    line = str(caught.value)
    assert str(path) in line and "\n" not in line


def changed(array, row, value, column=None):
    array = array.copy()
    array[row if column is None else (row, column)] = value
    return array


def test_impossible_numbers_are_refused_by_name(write, showers):
    energy, deposits = showers
    for value in (0.0, -5.0, np.nan, np.inf, 5.0):
        arrays = challenge(showers, incident_energies=changed(energy, 7, value))
        refused(write(**arrays), "incident energy of shower 7 is")
    for value in (-1.0, np.nan, np.inf, -np.inf, 1e40):
        arrays = challenge(showers, showers=changed(deposits.astype(float), 7, value, 11))
        refused(write(**arrays), "voxel 11 of shower 7 is")


def test_mixed_units_are_refused(write, showers):
    energy, deposits = showers
    refused(write(**challenge(showers, incident_energies=energy / 1e3)), "in GeV|MeV and GeV")
    refused(write(**challenge(Showers(energy * 1e3, deposits))), "MeV and GeV mixed up")
    refused(write(**challenge(Showers(energy, deposits / 1e3))), "MeV and GeV mixed up")
    refused(write(**challenge(Showers(energy, deposits * 1e3))), "MeV and GeV mixed up")
    refused(write(**challenge(Showers(energy / 1e3, deposits / 1e3))), "is it in GeV")


def test_hard_showers_all_in_gev_are_told(write, showers, capsys):
    """No energy is out of range; but the voxels are below the threshold of their geometry."""
    energy, deposits = showers
    path = write(**challenge(Showers(energy * 0.1, deposits * 1e-3 * 100)))
    readers.read(path, GRID)
    assert "of the voxels with energy are below 1 MeV" in capsys.readouterr().err


def test_shapes_and_keys_that_fit_nothing_are_refused(write, showers):
    energy, deposits = showers
    pions = made(np.random.default_rng(5), geometry.dataset_1_pions(), 3)
    refused(write(**challenge(pions)), r"the geometry has 368 voxels; give dataset_1_pions\(\)")
    refused(write(**challenge(Showers(energy, deposits[:, 1:]))), r"give the geometry \(XML\)")
    refused(write(**challenge(showers, showers=deposits.reshape(N, 23, 16))), "has shape")
    refused(write(incident_energies=energy), "holds no array 'showers'")
    refused(write(showers=deposits), "holds no array 'incident_energies'")
    refused(write(**challenge(showers, incident_energies=energy[:-1])), "differ in length")
    refused(write(other=energy), "give incident_energies and showers")
    refused(write(**challenge(showers, showers=np.full((N, 368), b"x"))), "give numbers")
    refused(write(**challenge(Showers(energy[:0], deposits[:0]))), "holds no showers")
    refused(write(**challenge(showers)), "are not within 40", rows=(30, 50))


def test_swapped_planes_of_calogan_are_refused(write):
    shapes = ((12, 12), (3, 96), (12, 6))
    layers = {f"layer_{k}": np.ones((N, *s)) for k, s in enumerate(shapes)}
    refused(write(**layers, energy=np.ones(N)), "layers in their order", PLANES)
    del layers["layer_2"]
    refused(write(**layers, energy=np.ones(N)), "layers in their order", PLANES)


def test_xml_that_does_not_fit_the_file_is_refused(write, tmp_path, showers):
    (tmp_path / "b.xml").write_text(
        '<Bins><Bin name="photon"><Layer id="0" r_edges="0,1" n_bin_alpha="9"/></Bin></Bins>'
    )
    grid = Geometry.from_xml(tmp_path / "b.xml", "photon")
    refused(write(**challenge(showers)), "the geometry has 9 voxels", grid)


def test_declared_terabytes_are_refused(tmp_path):
    path = tmp_path / "bomb.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("showers", (10**10, GRID.size), "f8", chunks=(10, GRID.size))
        file.create_dataset("incident_energies", (10**10, 1), "f8", chunks=(10, 1))
    refused(path, "declares 80.0 GB and stores 0 bytes")


@pytest.mark.parametrize("cut", [0, 3, 100, 0.5, 0.99])
def test_truncated_files_are_refused(write, showers, cut):
    path = write(**challenge(showers))
    content = path.read_bytes()
    path.write_bytes(content[: int(cut if cut >= 1 else cut * len(content))])
    refused(path, "cannot be read as HDF5")


def test_flipped_bits_are_refused_or_harmless(tmp_path, showers):
    """Own files carry their sha256: 200 flips, none gives other numbers."""
    path = tmp_path / "own.hdf5"
    writers.write_challenge(path, showers, GRID)
    content, random = path.read_bytes(), np.random.default_rng(6)
    for place in random.integers(0, len(content), 200):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        try:
            same(readers.read(path, GRID).showers, showers)
        except DataError as error:
            assert str(path) in str(error)


def test_published_files_are_compared(write, showers, monkeypatch):
    path = write("dataset_2_1.hdf5", **challenge(showers))
    refused(path, "the published file has 1356475617")
    size = path.stat().st_size
    monkeypatch.setitem(readers.PUBLISHED, path.name, (size, sha256(path)))
    same(readers.read(path, GRID).showers, showers)
    monkeypatch.setitem(readers.PUBLISHED, path.name, (size, "0" * 64))
    refused(path, "sha256 differs")
    refused(write(**challenge(showers)), "sha256 differs", sha256="0" * 64)


def test_files_that_are_none_are_refused(tmp_path):
    refused(tmp_path / "none.hdf5", "not a readable file")
    refused(tmp_path, "not a readable file")
    (tmp_path / "page.hdf5").write_text("<html>not found</html>")
    refused(tmp_path / "page.hdf5", "cannot be read as HDF5")
    root.write(tmp_path / "a.root", "t", {"x": np.ones(3)})
    refused(tmp_path / "a.root", "holds 0 branches cell_0")


def test_odd_showers_are_kept_and_told(write, showers, capsys):
    energy, deposits = showers[0].copy(), showers[1].copy()
    deposits[3:5] = 0
    energy[9], deposits[9], deposits[9, 17] = 5e4, 0, 4.5e4
    deposits[20] *= 10
    path = write(**challenge(Showers(energy, deposits)))
    found = readers.read(path, GRID)
    same(found.showers, Showers(energy, deposits))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith(f"{path}: ") for line in lines)
    assert "2 of 40 showers hold no energy (the first in row 3)" in lines[0]
    assert "1 of 40 showers have more than 99% of it in one voxel (the first in row 9)" in lines[1]
    assert (
        "1 of 40 showers hold more than 5 times their incident energy (the first in row 20)"
        in lines[2]
    )


@pytest.mark.parametrize("order", ["swapped", "reversed"])
def test_layers_out_of_order_are_told(tmp_path, shared_data, order, capsys):
    grid = geometry.dataset_2()
    found = readers.read(shared_data / "calo/geant4_ds2like_electrons.hdf5", grid).showers
    layers = np.arange(45)
    layers = layers[::-1] if order == "reversed" else np.r_[:4, 25, 5:25, 4, 26:45]
    deposits = found.deposits.reshape(-1, 45, 144)[:, layers].reshape(-1, 6480)
    hdf5.write(tmp_path / "odd", challenge(Showers(found.incident_energy, deposits)), level=1)
    readers.read(tmp_path / "odd", grid)
    assert f"layers seem to be {order}" in capsys.readouterr().err


def test_layers_of_set_1_that_do_not_fit_are_told(write, capsys):
    """The first two layers with sectors change places: their voxels land in other rings."""
    random, parts = np.random.default_rng(8), geometry.slices(GRID)
    middle = geometry.centres(GRID).r
    mean = np.exp(-middle / 20) * (1 + (np.arange(GRID.size) % 3))  # falls with the radius
    for order in ([0, 1, 2, 3, 4], [0, 2, 1, 3, 4]):
        voxels = random.gamma(5, mean, (200, GRID.size)) * 300 + 1
        voxels = np.concatenate([voxels[:, parts[k]] for k in order], axis=1)
        path = write(incident_energies=1.1 * voxels.sum(axis=1), showers=voxels)
        readers.read(path, GRID)
        told = capsys.readouterr().err
        assert told.count("\n") == (order[1] == 2)
    assert "sectors of layer" in told and "swapped" in told
    readers.read(path, GRID, tell=False)
    assert not capsys.readouterr().err


def test_impossible_overflows_are_not_written(tmp_path):
    sample = made(np.random.default_rng(3), SMALL, 3)
    for write in (writers.write_calogan, writers.write_cells):
        for overflow in (np.ones((2, 2)), np.ones(3), -np.ones((3, 2)), np.full((3, 2), np.nan)):
            with pytest.raises(DataError, match="overflow"):
                write(tmp_path / "made", sample, SMALL, overflow)
    assert not list(tmp_path.iterdir())


def test_nothing_impossible_is_written(tmp_path, showers):
    energy, deposits = showers
    path = tmp_path / "made.hdf5"
    for bad_showers, said in (
        (Showers(energy, deposits / 1e3), "MeV and GeV mixed up"),
        (Showers(energy / 1e3, deposits / 1e3), "is it in GeV"),
        (Showers(energy, changed(deposits, 2, np.nan, 3)), "voxel 3 of shower 2 is nan"),
        (Showers(energy, deposits[:, :-1]), "the geometry has 368 voxels"),
        (Showers(energy[:-1], deposits), "one energy and one row"),
    ):
        with pytest.raises(DataError, match=said):
            writers.write_challenge(path, bad_showers, GRID)
    assert not list(tmp_path.iterdir())


def test_one_weak_shower_does_not_mix_up_units(write, showers):
    """Units are judged by many showers together: blocks of one may hold a weak one first."""
    energy, deposits = showers.incident_energy.copy(), showers.deposits.copy()
    energy[0], deposits[0] = 9e4, (deposits[0] > 0) * 1.0  # some 200 MeV of 90 GeV
    path = write(**challenge(Showers(energy, deposits)))
    assert len(list(readers.iterate(path, GRID, step=1))) == N
