"""HDF5: what is written comes back, and every kind of damage is refused."""

import time

import h5py
import numpy as np
import pytest

from physml.errors import DataError
from physml.io import hdf5

ARRAYS = {
    "energy": np.random.default_rng(0).normal(size=(40, 3)),
    "count": np.arange(7, dtype=np.int32),
    "class": np.array([b"V3", b"I2"]),
    "none": np.zeros((0, 3)),
    "scalar": np.float64(2.5),
    "group/flag": np.array([True, False]),
}


def same(found):
    return set(found) == set(ARRAYS) and all(
        found[k].dtype == np.asarray(v).dtype and np.array_equal(found[k], v)
        for k, v in ARRAYS.items()
    )


@pytest.fixture
def path(tmp_path):
    hdf5.write(tmp_path / "new" / "a.h5", ARRAYS, {"unit": "eV", "seed": 3})
    return tmp_path / "new" / "a.h5"


def test_arrays_and_attributes_return(path):
    assert same(hdf5.read(path))
    assert hdf5.read_attributes(path) == {"unit": "eV", "seed": 3}
    with h5py.File(path) as file:  # any HDF5 reader can read it
        np.testing.assert_array_equal(file["energy"], ARRAYS["energy"])
        assert file["energy"].compression == "gzip" and file["energy"].fletcher32


def test_equal_input_gives_equal_bytes(path, tmp_path):
    time.sleep(max(0.0, path.stat().st_mtime + 1.1 - time.time()))  # HDF5 counts in seconds
    hdf5.write(tmp_path / "b.h5", dict(reversed(ARRAYS.items())), {"seed": 3, "unit": "eV"})
    assert (tmp_path / "b.h5").read_bytes() == path.read_bytes()


def test_no_flipped_bit_changes_a_number(path):
    content, random = path.read_bytes(), np.random.default_rng(1)
    refused = 0
    for place in random.integers(len(content), size=300):
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            assert same(hdf5.read(path))
        except DataError:
            refused += 1
    assert refused > 200


def test_every_truncation_is_refused(path):
    content = path.read_bytes()
    for end in [0, 1, 7, 512, *range(600, len(content), 400), len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(DataError) as error:
            hdf5.read(path)
        assert "\n" not in str(error.value)


def fan(file):
    """Three ways into each of 15 groups: 14 million paths in a small file."""
    inner = file.create_group("0")
    for k in range(1, 15):
        outer = file.create_group(str(k))
        for name in "abc":
            outer[name] = inner
        inner = outer


def wide_chunk(file):
    """Ten values, in one chunk of a thousand million."""
    file.create_dataset("x", (10,), "f8", chunks=(10**9,), maxshape=(None,))


def foreign(path, fill):
    with h5py.File(path, "w") as file:
        fill(file)


@pytest.mark.parametrize(
    "fill, message",
    [
        (lambda f: f.create_dataset("x", (10**6, 10**6), "f8", chunks=(10, 10)), "8000.0 GB"),
        (lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")), "is a link"),
        (lambda f: f.__setitem__("x", h5py.SoftLink("/y")), "is a link"),
        (lambda f: f.__setitem__("x", f["/"]), "met before"),
        (fan, "met before"),
        (lambda f: f.create_group("/".join("abcdefghijklmnopqrstu")), "deeper than"),
        (wide_chunk, r"8\.0 GB, over the limit"),
        (lambda f: f.__setitem__("x", ["a", "b"]), "no plain array"),
        (lambda f: f.create_dataset("x", data=h5py.Empty("f8")), "no plain array"),
    ],
)
def test_foreign_files_are_read_with_care(tmp_path, fill, message):
    foreign(tmp_path / "x.h5", fill)
    with pytest.raises(DataError, match=message):
        hdf5.read(tmp_path / "x.h5")


def test_a_plain_foreign_file_is_read(tmp_path):
    foreign(tmp_path / "x.h5", lambda f: f.create_dataset("a/b", data=np.arange(3)))
    np.testing.assert_array_equal(hdf5.read(tmp_path / "x.h5")["a/b"], [0, 1, 2])
    with pytest.raises(DataError, match="over the limit"):
        hdf5.read(tmp_path / "x.h5", max_bytes=23)


def test_what_is_no_hdf5_is_refused(tmp_path):
    (tmp_path / "page.h5").write_text("<html>404</html>")
    (tmp_path / "empty.h5").touch()
    for name in ("page.h5", "empty.h5", "missing.h5", ".", "bad\0name", "x" * 5000):
        with pytest.raises(DataError) as error:
            hdf5.read(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u2", "i4", "i8", "f4", "f8", ">f8", "c16", "S4", "f2"]
)
def test_every_plain_dtype_returns(tmp_path, dtype):
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    one = values.ravel()[5:6].reshape(())
    hdf5.write(tmp_path / "a.h5", {"x": values, "none": values[:0], "one": one})
    found = hdf5.read(tmp_path / "a.h5")
    for name, expected in (("x", values), ("none", values[:0]), ("one", one)):
        assert found[name].dtype == np.dtype(dtype) and found[name].shape == expected.shape
        np.testing.assert_array_equal(found[name], expected)


def test_a_failed_write_leaves_the_previous_file(path):
    before = path.read_bytes()
    with pytest.raises(TypeError, match="no native HDF5 equivalent"):
        hdf5.write(path, ARRAYS, {"unit": object()})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("values", [["text"], [object()], [None]])
def test_what_cannot_be_stored_is_refused_and_nothing_written(tmp_path, values):
    with pytest.raises(DataError, match="cannot be stored"):
        hdf5.write(tmp_path / "new" / "x.h5", {"x": values})
    assert list(tmp_path.iterdir()) == []
