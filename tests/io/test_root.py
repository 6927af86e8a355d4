"""ROOT: real files against uproot and their manifest, round trips, damage and bad input."""

import json
import os
import re
import tracemalloc
from collections import Counter

import awkward as ak
import numpy as np
import pytest
import uproot

from physml.errors import ConfigError, DataError
from physml.io import _columns as columns_of
from physml.io import manifest, root
from physml.io.root import Jagged

NUMBER = r"(bool|char|float|double|Double32_t|(std::)?u?int(8|16|32|64)_t)"
PLAIN = re.compile(  # C++ types that must be readable: numbers, arrays and lists of them, text
    rf"{NUMBER}(\[\d*\])?|(std::vector|RVec|ROOT::VecOps::RVec)<{NUMBER}>"
    rf"|std::array<{NUMBER},\d+>|ROOT::RNTupleCardinality<std::uint\d+_t>|std::string|char\*"
)
RANDOM = np.random.default_rng(3)
N = 1000
OFFSETS = np.concatenate([[0], np.cumsum(RANDOM.integers(0, 4, N))])
COLUMNS = {
    "run": np.arange(N, dtype=np.int32),
    "energy": RANDOM.normal(size=N),
    "good": RANDOM.random(N) < 0.5,
    "vertex": RANDOM.normal(size=(N, 3)).astype(np.float32),
    "matrix": np.arange(4 * N, dtype=np.uint16).reshape(N, 2, 2),
    "big": RANDOM.integers(-(2**60), 2**60, N),
    "byte": RANDOM.integers(0, 255, N).astype(np.uint8),
    "swapped": RANDOM.normal(size=N).astype(">f8"),
    "pt": Jagged(RANDOM.normal(size=OFFSETS[-1]).astype(np.float32), OFFSETS),
    "tight": Jagged(RANDOM.random(OFFSETS[-1]) < 0.5, OFFSETS.astype(np.int32)),
}


def same(found, expected):
    if isinstance(expected, Jagged):
        numbers = isinstance(found, Jagged) and same(found.values, expected.values)
        return numbers and np.array_equal(found.offsets, expected.offsets)
    equal_nan = expected.dtype.kind == "f"
    if expected.dtype.kind == "T":
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    native = found.dtype == expected.dtype.newbyteorder("=")
    return native and np.array_equal(found, expected, equal_nan=equal_nan)


def all_same(found, expected=None):
    expected = COLUMNS if expected is None else expected
    return list(found) == list(expected) and all(same(found[k], expected[k]) for k in expected)


def refused(call):
    """The single line of the DataError that a call raises."""
    with pytest.raises(DataError) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    return str(error.value)


@pytest.fixture
def path(tmp_path):
    root.write(tmp_path / "new" / "a:b.root", "events", COLUMNS)
    return tmp_path / "new" / "a:b.root"


def rntuple(path, n=N, rounds=4):
    """An RNTuple of several clusters, made by uproot."""
    whole = {
        "x": ak.Array(np.arange(n) / 7.0),
        "flag": ak.Array(np.arange(n) % 3 == 0),
        "small": ak.Array(np.arange(n, dtype=np.int16) - 20),
        "list": ak.unflatten(np.arange(3 * n // 2 * 2) / 3.0, np.tile([1, 5], n // 2)),
        "word": ak.Array([f"é{k}" * (k % 3) for k in range(n)]),
    }
    with uproot.recreate(path) as file:
        writer = file.mkrntuple("data", {k: v[: n // rounds] for k, v in whole.items()})
        for start in range(n // rounds, n, n // rounds):
            writer.extend({k: v[start : start + n // rounds] for k, v in whole.items()})
    return whole


def plain(array):
    """What `root.read` should give for an array of awkward."""
    if "string" in str(array.type):
        return np.array(ak.to_list(array), np.dtypes.StringDType())
    if array.ndim > 1 and "var" in str(array.type):
        counts = ak.to_numpy(ak.num(array))
        return Jagged(ak.to_numpy(ak.flatten(array)), np.concatenate([[0], np.cumsum(counts)]))
    return ak.to_numpy(array)


# Real files


def listed(shared_data):
    return json.loads((shared_data / "root" / "MANIFEST.json").read_text())["files"]


def sweep(path, most, limit, n_trees=None):
    """Read up to `most` columns of each tree; returns how many were equal, and the refusals."""
    equal, lines = 0, []
    with uproot.open({str(path): None}) as file:
        kinds = file.classnames(cycle=False)
        for name in [n for n, kind in kinds.items() if kind in root.TREES][:n_trees]:
            tree, types = file[name], root.describe(path, name)
            chosen = list(types)[:: max(1, len(types) // most)]
            inner = "." if kinds[name] == "ROOT::RNTuple" else "\n"  # parts of lists and records
            twice = {c for c, k in Counter(tree.keys()).items() if k > 1} if inner != "." else ()
            good = [c for c in chosen if PLAIN.fullmatch(types[c]) and inner not in c]
            good = [c for c in good if c not in twice]
            span = (0, min(int(tree.num_entries), limit))
            found = root.read(path, name, good, span) if good else {}
            items = dict(tree.items()) if inner != "." else tree
            for column, values in found.items():
                assert same(values, plain(items[column].array(entry_stop=limit))), column
            equal += len(found)
            for column in [c for c in chosen if c not in good][: min(most // 4, 3)]:
                try:
                    root.read(path, name, [column], span)
                except DataError as error:
                    lines.append(str(error))
    return equal, lines


def test_real_files_hold_what_their_manifest_says(shared_data):
    columns = 0
    for about in listed(shared_data):
        if about["columns_tried"] is None:  # the ATLAS file: below
            continue
        path = shared_data / "root" / about["file"]
        found = root.trees(path, sha256=about["sha256"])
        rows = [[name, tree.kind, tree.entries, tree.columns] for name, tree in found.items()]
        assert rows[:4] == about["trees"]  # the manifest lists the first four
        columns += sum(tree.columns for tree in found.values())
    assert columns == 4692


def test_real_columns_equal_uproot(shared_data):
    equal = 0
    for about in listed(shared_data):
        path = shared_data / "root" / about["file"]
        if about["columns_tried"] is not None and "multicluster" not in path.name:
            number, _ = sweep(path, most=3, limit=200, n_trees=1)
            equal += number
    assert equal > 150


@pytest.mark.slow
def test_every_real_column_equals_uproot_or_is_refused(shared_data):
    equal = refusals = 0
    for about in listed(shared_data):
        number, lines = sweep(shared_data / "root" / about["file"], most=10**6, limit=5000)
        assert all("\n" not in line for line in lines)
        equal, refusals = equal + number, refusals + len(lines)
    assert equal > 7000 and refusals > 30


@pytest.mark.parametrize(
    "name, tree, column, message",
    [
        ("uproot-issue431", "E", "Evt", "take one of its parts AAObject, id"),  # a group
        ("uproot-issue431", "E", "Evt/hits/hits.usr", "lists in lists"),
        ("uproot-issue-607", None, "event", "MGTEvent"),  # unsplit
        ("uproot-issue494", "Event", "Histos.histograms1D", "TH1D*"),  # pointers
        ("uproot-issue429", None, "data_ana_kk", "struct"),  # several leaves
        ("uproot-HZZ-objects", None, "jetp4", "TLorentzVector"),
        ("test_stl_containers_rntuple_v1-0-0-0", None, "vector_vector_int32", "lists in lists"),
        ("test_stl_containers_rntuple_v1-0-0-0", None, "variant_int32_string", "variant"),
        ("test_stl_containers_rntuple_v1-0-0-0", None, "lorentz_vector", "parts pt, eta, phi"),
        ("uproot-histograms", None, "one", "holds no tree; it holds one;1 (TH1F)"),
        ("uproot-issue64", None, "evenid", "did you mean 'eventid'?"),
        ("uproot-issue-513", None, "x", "holds 2 trees; name one of TrkAnaNeg/trkana"),
        ("uproot-nesteddirs", "one/two/trees", "x", "did you mean 'one/two/tree'?"),
    ],
)
def test_what_no_array_holds_is_refused_by_name(shared_data, name, tree, column, message):
    path = shared_data / "root" / f"{name}.root"
    line = refused(lambda: root.read(path, tree, [column]))
    assert message in line and name in line


def test_a_small_file_of_many_numbers_is_refused_but_its_ranges_are_read(shared_data):
    path = shared_data / "root" / "test_int_multicluster_rntuple_v1-0-0-0.root"
    assert root.trees(path)["ntuple;1"].entries == 100_000_000
    tracemalloc.start()
    line = refused(lambda: root.read(path, None, ["one_integers"], max_bytes=100 << 20))
    assert "204 MB, over the limit of 105 MB" in line
    values = root.read(path, None, ["one_integers"], (99_999_990, 100_000_000))["one_integers"]
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert values.tolist() == [1] * 10


def test_lists_of_records_are_read_by_their_parts(shared_data):
    path = shared_data / "root" / "test_int_vfloat_tlv_vtlv_rntuple_v1-0-0-0.root"
    found = root.read(path, None, ["four_v_LVs.pt", "three_LV.pt"])
    with uproot.open(path) as file:
        for name, values in found.items():
            assert same(values, plain(file["ntuple"][name].array()))
    assert "'pt' names 2 columns; say three_LV.pt, four_v_LVs.pt" in refused(
        lambda: root.read(path, None, ["pt"])
    )


# Own files


def test_columns_return(path):
    assert all_same(root.read(path, "events", list(COLUMNS)))
    assert root.trees(path) == {"events;1": root.Tree("TTree", N, len(COLUMNS) + 2)}
    assert root.describe(path)["vertex"] == "float[3]"
    renamed = root.read(path, None, {"E": "energy"}, (10, 20))
    assert all_same(renamed, {"E": COLUMNS["energy"][10:20]})
    with uproot.open({str(path): "events"}) as tree:  # any reader of ROOT can read it
        assert ak.to_list(tree["npt"].array()) == np.diff(OFFSETS).tolist()
        assert np.array_equal(tree["matrix"].array(library="np"), COLUMNS["matrix"])
    with uproot.open(path) as file:
        assert file.file.compression.__class__.__name__ == "ZLIB"


@pytest.mark.parametrize("entries", [(0, 0), (0, 1), (3, 700), (N, N), (N - 1, N), (333, 334)])
def test_ranges_are_slices(path, tmp_path, entries):
    found = root.read(path, None, ["energy", "pt", "vertex"], entries)
    assert all_same(found, {k: columns_of.part(COLUMNS[k], *entries) for k in found})
    whole = rntuple(tmp_path / "r.root")
    found = root.read(tmp_path / "r.root", None, list(whole), entries)
    assert all_same(found, {k: plain(v[slice(*entries)]) for k, v in whole.items()})


@pytest.mark.parametrize("step", [None, 1, 7, 250, 999, N, 5 * N])
def test_parts_make_up_the_whole(path, tmp_path, step):
    rntuple(tmp_path / "r.root")
    size = step or N
    for file, names in ((path, ["run", "vertex", "pt"]), (tmp_path / "r.root", ["x", "list"])):
        parts = list(root.iterate(file, None, names, step, entries=(5, N)))
        lengths = [columns_of.length(part[names[0]]) for part in parts]
        assert lengths[:-1] == [size] * (len(parts) - 1) and sum(lengths) == N - 5
        whole = root.read(file, None, names, (5, N))
        for name in names:
            pieces = [part[name] for part in parts]
            if isinstance(whole[name], Jagged):
                counts = np.concatenate([np.diff(piece.offsets) for piece in pieces])
                assert np.array_equal(counts, np.diff(whole[name].offsets))
                pieces = [piece.values for piece in pieces]
            joined = np.concatenate(pieces)
            assert same(joined, getattr(whole[name], "values", whole[name]))


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_iterating_holds_little_at_a_time(tmp_path, kind):
    n = 2_000_000
    with uproot.recreate(tmp_path / "x.root", compression=uproot.ZLIB(1)) as file:
        make = file.mktree if kind == "TTree" else file.mkrntuple
        tree = make("t", {"x": np.dtype("f8"), "k": np.dtype("i4")})
        for start in range(0, n, n // 20):
            rows = np.arange(start, start + n // 20)
            tree.extend({"x": rows / 2.0, "k": rows.astype(np.int32)})
    tracemalloc.start()
    total, entries = 0.0, 0
    for part in root.iterate(tmp_path / "x.root", "t", ["x", "k"], max_bytes=3_000_000):
        total, entries = total + (part["x"] * 2).sum(), entries + len(part["k"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert entries == n and total == n * (n - 1) / 2
    assert peak < 9e6  # of 24 MB


def test_an_empty_tree_returns(tmp_path):
    empty = {"x": np.zeros(0), "list": Jagged(np.zeros(0, np.int32), np.zeros(1, np.int64))}
    root.write(tmp_path / "e.root", "t", empty)
    assert all_same(root.read(tmp_path / "e.root", None, ["x", "list"]), empty)
    assert list(root.iterate(tmp_path / "e.root", None, ["x"])) == []


def test_the_highest_cycle_counts(tmp_path):
    with uproot.recreate(tmp_path / "c.root") as file:
        file.mktree("t", {"x": np.dtype("f8")}).extend({"x": np.zeros(3)})
        file.mktree("t", {"x": np.dtype("f8")}).extend({"x": np.ones(4)})
    assert sorted(root.trees(tmp_path / "c.root")) == ["t;1", "t;2"]
    for tree, n in ((None, 4), ("t", 4), ("t;2", 4), ("t;1", 3)):
        assert len(root.read(tmp_path / "c.root", tree, ["x"])["x"]) == n


def test_a_friend_carries_its_keys(tmp_path):
    keys = {"run": np.repeat([1, 2], 4), "event": np.tile(np.arange(4, dtype=np.uint64), 2)}
    score = np.linspace(0, 1, 8)
    root.write_friend(tmp_path / "f.root", "scores", {"score": score}, keys)
    found = root.read(tmp_path / "f.root", "scores", ["run", "event", "score"])
    assert all_same(found, {**keys, "score": score})


# Damage


def flips(content, n, seed):
    random = np.random.default_rng(seed)
    for place in random.integers(len(content), size=n):
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.integers(8)
        yield bytes(damaged)


def outcomes(path, names, expected, contents):
    """Refused or identical; anything else fails."""
    count = Counter()
    for content in contents:
        path.write_bytes(content)
        try:
            assert all_same(root.read(path, None, names), expected)
            count["identical"] += 1
        except DataError as error:
            assert "\n" not in str(error)
            count["refused"] += 1
    return count


def test_no_flipped_bit_of_a_compressed_tree_changes_a_number(path):
    names = ["energy", "vertex", "pt", "good", "run"]
    expected = {name: COLUMNS[name] for name in names}
    count = outcomes(path, names, expected, flips(path.read_bytes(), 250, 1))
    assert count["refused"] > 60


@pytest.mark.parametrize("compression", [None, uproot.ZLIB(1)])
def test_no_flipped_bit_of_an_rntuple_changes_a_number(tmp_path, compression):
    path = tmp_path / "r.root"
    whole = rntuple(path, 200)
    expected = {name: plain(values) for name, values in whole.items()}
    count = outcomes(path, list(whole), expected, flips(path.read_bytes(), 150, 2))
    assert count["refused"] > 60


def test_a_damaged_uncompressed_tree_is_refused_by_its_sha256(tmp_path):
    path = tmp_path / "u.root"
    with uproot.recreate(path, compression=None) as file:
        file.mktree("t", {"x": np.dtype("f8")}).extend({"x": np.arange(1000.0)})
    digest = manifest.sha256(path)
    assert root.read(path, None, ["x"], sha256=digest)["x"][-1] == 999
    content = path.read_bytes()
    silent = 0
    for damaged in flips(content, 30, 5):
        path.write_bytes(damaged)
        line = refused(lambda: root.read(path, None, ["x"], sha256=digest))
        assert "sha256 differs" in line
        for parts in (root.iterate(path, None, ["x"], sha256=digest),):
            refused(lambda parts=parts: next(parts))
        try:
            silent += not np.array_equal(root.read(path, None, ["x"])["x"], np.arange(1000.0))
        except DataError:
            pass
    assert silent > 5  # what the docstring warns of


def test_every_truncation_is_refused(path, tmp_path):
    whole = rntuple(tmp_path / "r.root", 100)
    for file, name in ((path, "energy"), (tmp_path / "r.root", next(iter(whole)))):
        content = file.read_bytes()
        ends = [0, 1, 3, 4, 19, 20, 63, 100, *RANDOM.integers(100, len(content), 100)]
        for end in [*ends, len(content) - 1]:
            file.write_bytes(content[:end])
            refused(lambda file=file, name=name: root.read(file, None, [name]))


def test_a_truncated_file_that_declares_its_new_length_never_gives_less(path):
    content, names = path.read_bytes(), ["energy", "pt"]
    ends = RANDOM.integers(100, len(content), 100).tolist()
    heads = (content[:12] + end.to_bytes(4, "big") + content[16:end] for end in ends)
    count = outcomes(path, names, {name: COLUMNS[name] for name in names}, heads)
    assert count["refused"] > 60


# Bad input


def test_what_is_no_root_file_is_refused(tmp_path):
    (tmp_path / "page.root").write_text("<html>404 not found, but long enough</html>")
    (tmp_path / "empty.root").touch()
    (tmp_path / "root").write_bytes(b"root")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("page.root", "empty.root", "root", "loop", "pipe", "missing", ".", "bad\0name"):
        for call in (root.trees, root.describe, lambda p: root.read(p, None, ["x"])):
            line = refused(lambda call=call, name=name: call(tmp_path / name))
            assert name == "." or name.rstrip("\0name") in line
    assert "begins with b'<htm'" in refused(lambda: root.trees(tmp_path / "page.root"))


@pytest.mark.parametrize(
    "entries", [(0, N + 1), (-1, 5), (7, 6), (0.5, 3), (-3, -1), (float("nan"), 2)]
)
def test_entries_beyond_the_tree_are_refused(path, entries):
    assert f"within {N}" in refused(lambda: root.read(path, None, ["run"], entries))
    refused(lambda: next(root.iterate(path, None, ["run"], entries=entries)))


def test_limits_and_arguments_are_checked(path):
    assert "over the limit" in refused(lambda: root.read(path, None, ["run"], max_bytes=100))
    assert "over the limit" in refused(
        lambda: next(root.iterate(path, None, ["run"], step=N, max_bytes=3000))
    )
    assert "did you mean 'energy'?" in refused(lambda: root.read(path, None, ["enrgy"]))
    for columns in ("run", [], {}):
        with pytest.raises(ConfigError, match="columns"):
            root.read(path, None, columns)
    for step in (0, -1, 2.5, True):
        with pytest.raises(ConfigError, match="step"):
            root.iterate(path, None, ["run"], step)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({}, "no columns"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, "differ in length"),
        ({"a": np.zeros(3), "b": Jagged(np.zeros(3), [0, 3])}, "differ in length"),
        ({"a": ["x", "y"]}, "holds <U1"),
        ({"a": [None, 1]}, "holds object"),
        ({"a": np.zeros(2, complex)}, "holds complex128"),
        ({"a": np.zeros(2, np.float16)}, "float16"),
        ({"a": 3.0}, r"shape \(\)"),
        ({"a": np.zeros((2, 0))}, r"shape \(2, 0\)"),
        ({"a": Jagged(np.zeros(3), [0, 2, 1, 3])}, "offsets of 'a'"),
        ({"a": Jagged(np.zeros(3), [0, 2])}, "offsets of 'a'"),
        ({"a": Jagged(np.zeros(3), [1, 3])}, "offsets of 'a'"),
        ({"a": Jagged(np.zeros(3), [0.0, 3.0])}, "offsets of 'a'"),
        ({"a": Jagged(np.zeros(3), [0, 3]), "na": [3]}, "counter of 'a'"),
        ({"a/b": np.zeros(3)}, "no name for ROOT"),
        ({"": np.zeros(3)}, "no name for ROOT"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        root.write(tmp_path / "new" / "w.root", "t", columns)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "keys, message",
    [
        ({}, "keys are missing"),
        ({"run": [1, 1, 2]}, "name two entries alike"),
        ({"run": [1, 1, 2], "event": [5, 5, 5]}, "name two entries alike"),
        ({"run": [1.0, 2.0, np.nan]}, "no NaN"),
        ({"run": [[1], [2], [3]]}, "shape"),
        ({"run": [1, 2]}, "differ in length"),
        ({"run": [1, 2, 3], "event": [1, 2]}, "different lengths"),
        ({"score": [1, 2, 3]}, "a key and a column"),
    ],
)
def test_keys_must_name_every_entry_once(tmp_path, keys, message):
    with pytest.raises(DataError, match=message):
        root.write_friend(tmp_path / "f.root", "t", {"score": np.zeros(3)}, keys)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_when_asked(path):
    before = path.read_bytes()
    assert "exists already" in refused(lambda: root.write(path, "t", {"x": np.zeros(3)}))
    assert path.read_bytes() == before
    root.write(path, "t", {"x": np.zeros(3)}, overwrite=True)
    assert list(root.trees(path)) == ["t;1"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_previous_file(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    line = refused(lambda: root.write(path, "t", {"x": np.zeros(3)}, overwrite=True))
    assert "disk full" in line and path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
