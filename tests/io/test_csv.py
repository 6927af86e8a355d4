"""Tables of numbers: exact values, damage, limits."""

import gzip
import time

import numpy as np
import pytest

from physml.errors import DataError
from physml.io import csv, manifest

TYPES = {"hit_id": int, "x": float, "particle_id": int}
HUGE = 2**53 + 1  # no float holds it
TEXT = f"hit_id,x,,particle_id\n1,-0.5,7,{HUGE}\n2,1e-3,8,{-(2**63)}\n3,nan,9,{2**63 - 1}\n"


def refused(path, types=TYPES, **options):
    with pytest.raises(DataError) as error:
        csv.read(path, types, **options)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.csv").write_text(TEXT)
    return tmp_path / "a.csv"


def test_values_are_exact(path):
    found = csv.read(path, TYPES)
    assert list(found) == list(TYPES)
    assert found["hit_id"].tolist() == [1, 2, 3] and found["hit_id"].dtype == np.int64
    assert found["particle_id"].tolist() == [HUGE, -(2**63), 2**63 - 1]
    np.testing.assert_array_equal(found["x"], [-0.5, 1e-3, np.nan])


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t + "\n\n",
        lambda t: "\ufeff" + t,
        lambda t: t.replace("hit_id", '"hit_id"', 1),
    ],
)
def test_other_line_ends_marks_and_quotes_change_nothing(path, change):
    expected = csv.read(path, TYPES)
    path.write_bytes(change(TEXT).encode())
    found = csv.read(path, TYPES)
    for name in TYPES:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_missing_line_end_is_refused_where_nothing_else_tells_truncation(path):
    path.write_text(TEXT.rstrip("\n"))
    assert "ends within a line" in refused(path)
    path.write_bytes(gzip.compress(TEXT.rstrip("\n").encode()))
    assert csv.read(path, TYPES)["particle_id"][2] == 2**63 - 1


def test_packed_and_plain_tables_are_the_same(path, tmp_path):
    for name in ("b.csv.gz", "named_wrongly.csv"):
        (tmp_path / name).write_bytes(gzip.compress(TEXT.encode()))
        assert csv.read(tmp_path / name, TYPES)["particle_id"][0] == HUGE
    found = csv.read(path, TYPES, sha256=manifest.sha256(path))
    assert len(found["x"]) == 3
    assert "sha256 differs" in refused(path, sha256="0" * 64)


def test_what_was_written_is_read_again(tmp_path):
    rng = np.random.default_rng(0)
    table = {
        "id": rng.integers(-(2**63), 2**63 - 1, 500),
        "value": rng.normal(size=500) * 10.0 ** rng.integers(-300, 300, 500),
        "small": rng.normal(size=500).astype(np.float32),
    }
    for name in ("a.csv", "a.csv.gz"):
        csv.write(tmp_path / "new" / name, table)
        found = csv.read(tmp_path / "new" / name, {"id": int, "value": float, "small": float})
        for key, values in table.items():
            np.testing.assert_array_equal(found[key], values)
    with pytest.raises(DataError, match="differ in length"):
        csv.write(tmp_path / "b.csv", {"a": np.arange(3), "b": np.arange(2)})
    with pytest.raises(DataError, match="cannot be written"):
        csv.write(tmp_path / "new" / "a.csv" / "b.csv", table)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.csv", "a.csv.gz"]


def test_columns_may_be_optional(path):
    assert list(csv.read(path, TYPES | {"pdg": int}, optional=["pdg", "x"])) == list(TYPES)
    assert "holds no column 'pdg'; it holds 'hit_id', 'x', ''" in refused(path, {"pdg": int})
    path.write_text("a,b,a\n1,2,3\n")
    assert "holds 2 columns 'a'" in refused(path, {"a": int})
    assert csv.read(path, {"b": int})["b"].tolist() == [2]


def test_a_table_without_rows_is_empty(path):
    path.write_text("hit_id,x,particle_id\n")
    found = csv.read(path, TYPES)
    assert [len(c) for c in found.values()] == [0, 0, 0] and found["x"].dtype == np.float64


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("hit_id,x,particle_id\n1,2\n", "line 2 holds 2 values, not 3"),
        ("hit_id,x,particle_id\n1,2,3\n1,2,3,4\n", "line 3 holds 4 values, not 3"),
        ("hit_id,x,particle_id\n1,2,3\n\n1,2,3\n", "line 3 holds 0 values, not 3"),
        ("hit_id,x,particle_id\n1,2,3\n1.5,2,3\n", "string '1.5' to int64 at line 3"),
        ("hit_id,x,particle_id\nnan,2,3\n", "'nan' to int64 at line 2"),
        ("hit_id,x,particle_id\n,2,3\n", "'' to int64 at line 2"),
        ("hit_id,x,particle_id\n1,,3\n", "'' to float64 at line 2"),
        (f"hit_id,x,particle_id\n1,2,{2**63}\n", f"'{2**63}' to int64"),
        ("hit_id,x,particle_id\n1,2,1e3\n", "'1e3' to int64"),
        ("hit_id,x,particle_id\n1,0x1p3,3\n", "'0x1p3' to float64"),
        ("hit_id,x,particle_id\n1,2,3 # no\n", "'3 # no' to int64"),
        ("hit_id,x,particle_id\n1,2,3\r4,5,6\n", "values, not 3"),
        ("hit_id,x,particle_id\n1,\u00bd,3\n", "cannot be read"),
        ("<html>\n<body>\n", "holds no column 'hit_id'"),
    ],
)  # fmt: skip
def test_bad_text_is_refused(path, text, said):
    path.write_bytes(text.encode())
    assert said in refused(path)


def test_what_is_no_file_is_refused(tmp_path):
    assert "is not a readable file" in refused(tmp_path)
    assert "is not a readable file" in refused(tmp_path / "absent.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\n")
    assert "is not text" in refused(tmp_path / "a.csv")


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"hit_id,x,particle_id\n" + b"1,2,3\n" * 5_000_000, 9))
    assert path.stat().st_size < 100_000
    start = time.process_time()
    assert "holds more than the limit of 10 MB" in refused(path, max_bytes=10_000_000)
    assert time.process_time() - start < 0.5


def test_damaged_gzip_never_gives_other_numbers(path):
    rng = np.random.default_rng(1)
    values = rng.normal(size=300).tolist()
    rows = "".join(f"{k},{v!r},{k % 7},{k * 2**40}\n" for k, v in enumerate(values))
    whole = gzip.compress((TEXT.splitlines()[0] + "\n" + rows).encode())
    path.write_bytes(whole)
    expected = csv.read(path, TYPES)
    refusals = 0
    for k in range(400):
        if k % 2:
            path.write_bytes(whole[: rng.integers(len(whole))])
        else:
            changed = bytearray(whole)
            changed[rng.integers(len(whole))] ^= 1 << rng.integers(8)
            path.write_bytes(changed)
        try:
            found = csv.read(path, TYPES)
        except DataError as error:
            refusals += 1
            assert "\n" not in str(error)
        else:  # the time stamp or the system in the header of gzip
            assert all(np.array_equal(found[n], expected[n], equal_nan=True) for n in TYPES)
    assert refusals > 390


def test_plain_text_cut_anywhere_is_refused_or_keeps_its_whole_lines(path):
    whole = csv.read(path, TYPES)
    for cut in range(len(TEXT)):
        path.write_text(TEXT[:cut])
        if not TEXT[:cut].endswith("\n"):
            refused(path)
            continue
        found, rows = csv.read(path, TYPES), TEXT[:cut].count("\n") - 1
        for name in TYPES:
            np.testing.assert_array_equal(found[name], whole[name][:rows])


def test_120_000_rows_of_7_columns_are_fast(tmp_path):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 120_000)).round(6)
    names = ("hit_id", "volume_id", "layer_id", "module_id")
    table = dict(zip("xyz", x, strict=True)) | {n: np.arange(120_000) for n in names}
    csv.write(tmp_path / "a.csv", table)
    types = dict.fromkeys("xyz", float) | dict.fromkeys(names, int)
    times = []
    for _ in range(3):
        start = time.process_time()
        found = csv.read(tmp_path / "a.csv", types)
        times.append(time.process_time() - start)
    np.testing.assert_array_equal(found["z"], x[2])
    assert min(times) < 0.6  # parsing alone takes about 0.15 s
