"""Readers: each public layout written by hand, the shared real samples, and what is refused."""

import gzip
import pickletools
import shutil
import zlib
from collections import Counter

import h5py
import numpy as np
import pytest

from physml.errors import ConfigError, DataError
from physml.io import hdf5, root
from physml.neutrino import layouts, readers
from physml.neutrino.pixelmaps import dense

N = 30
SIZES = {"view": 2, "plane": 100, "cell": 80}


@pytest.fixture(scope="module")
def images():
    """Straight tracks in both views, (n, view, plane, cell), with a little noise."""
    random = np.random.default_rng(0)
    found = np.zeros((N, 2, 100, 80), np.uint8)
    for i in range(N):
        for view in (0, 1):
            plane = np.arange(random.integers(15, 90))
            cell = (40 + plane * random.normal(0, 0.4)).astype(int)
            inside = (cell >= 0) & (cell < 80)
            found[i, view, plane[inside], cell[inside]] = random.integers(1, 255, inside.sum())
            found[i, view, random.integers(0, 100, 3), random.integers(0, 80, 3)] = 2
    return found


def stored(images, axes):
    """Images in another order of axes, one row each."""
    names = ["view", "plane", "cell"]
    order = [1 + names.index(name) for name in axes.split()]
    return images.transpose(0, *order).reshape(len(images), -1)


@pytest.fixture
def write(tmp_path):
    """Write datasets with plain h5py, as other people's programs do."""

    def write(arrays, name="maps.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            for key, values in arrays.items():
                file[key] = values
        return tmp_path / name

    return write


def caf(images):
    """CAF-HDF5 with slices in one order and truth in another; every fifth is cosmic."""
    random = np.random.default_rng(1)
    column = lambda values, kind=np.uint32: np.asarray(values, kind)[:, None]  # noqa: E731
    keys = {"run": np.full(N, 12), "subrun": np.arange(N) // 9, "cycle": np.zeros(N),
            "evt": np.arange(N) // 3, "subevt": np.arange(N) % 3 + 1}  # fmt: skip
    arrays = {f"rec.training.cvnmaps/{k}": column(v) for k, v in keys.items()}
    arrays["rec.training.cvnmaps/cvnmap"] = stored(images, layouts.AXES[0])
    rows = random.permutation(np.flatnonzero(np.arange(N) % 5))
    truth = {"pdg": np.array([14, -12, 16, 12])[rows % 4], "iscc": rows % 3 > 0,
             "mode": np.array([0, 1, 2, 10, 1098])[rows % 5], "E": rows / 10}  # fmt: skip
    arrays |= {f"rec.mc.nu/{k}": column(v[rows]) for k, v in keys.items()}
    arrays |= {f"rec.mc.nu/{k}": column(v, float if k == "E" else np.int32)
               for k, v in truth.items()}  # fmt: skip
    return arrays


def code_of(row):
    """What `caf` wrote for a slice, in words of `layouts.CODES`."""
    if row % 5 == 0:
        return "cosmic"
    mode = [0, 1, 2, 10, 1098][row % 5]
    if row % 3 == 0:
        return "elastic" if mode == 1098 else "NC"
    flavour = ["numu", "nue", "nutau", "nue"][row % 4]
    return f"{flavour} {['QE', 'RES', 'DIS', 'other', 'other'][row % 5]}"


def test_caf_is_joined_by_key_and_the_rest_is_cosmic(images, write):
    maps, truth = readers.read_maps(write(caf(images)))
    np.testing.assert_array_equal(dense(maps), images)
    assert [layouts.CODES[c] for c in truth["code"]] == [code_of(row) for row in range(N)]
    beam = np.arange(N) % 5 > 0
    np.testing.assert_allclose(truth["energy"], np.where(beam, np.arange(N) / 10, 0))
    np.testing.assert_array_equal(truth["pdg"] == 0, ~beam)
    assert truth["evt"].tolist() == [row // 3 for row in range(N)]
    again = readers.read_truth(write(caf(images)))
    assert all(np.array_equal(again[name], truth[name]) for name in truth)


def test_caf_without_any_neutrino_is_all_cosmic(images, write):
    arrays = caf(images)
    for name in [name for name in arrays if name.startswith("rec.mc.nu/")]:
        arrays[name] = arrays[name][:0]
    assert (readers.read_maps(write(arrays)).truth["code"] == layouts.COSMIC).all()


def test_caf_training_labels_win_over_the_interaction(images, write):
    arrays = caf(images)
    for key in layouts.KEYS:
        arrays[f"rec.training.trainingdata/{key}"] = arrays[f"rec.mc.nu/{key}"][::-1]
    n = len(arrays["rec.mc.nu/run"])
    arrays["rec.training.trainingdata/interaction"] = np.arange(n)[:, None] % 14
    arrays["rec.training.trainingdata/nuenergy"] = np.full((n, 1), 2.5)
    truth = readers.read_maps(write(arrays)).truth
    row = layouts.join(truth, {k: arrays[f"rec.training.trainingdata/{k}"] for k in layouts.KEYS})
    np.testing.assert_array_equal(truth["code"], np.where(row < 0, 14, row % 14))
    np.testing.assert_array_equal(truth["energy"], np.where(row < 0, 0, 2.5))


def test_flat_files_of_both_kinds(images, write):
    flat = stored(images, layouts.AXES[0])
    code = np.arange(N) % 16
    plain = {"cvnmap": flat, "label": code, "energy": np.arange(N) + 0.5, "run": np.full(N, 3)}
    course = {"cvnmap": flat, "neutrino/interaction": code, "neutrino/nuenergy": plain["energy"]}
    for arrays in (plain, course):
        maps, truth = readers.read_maps(write(arrays))
        np.testing.assert_array_equal(dense(maps), images)
        np.testing.assert_array_equal(truth["code"], code)
        np.testing.assert_array_equal(truth["energy"], plain["energy"])
    assert readers.read_maps(write(plain)).truth["run"].tolist() == [3] * N


def test_pixelmaps_with_channels(images, write):
    shaped = images.transpose(0, 1, 3, 2)[..., None]
    for values in (shaped, shaped.astype(np.float32)):
        maps, truth = readers.read_maps(write({"pixelmaps": values, "labels": np.arange(N) % 16}))
        np.testing.assert_array_equal(dense(maps), images)
        np.testing.assert_array_equal(truth["code"], np.arange(N) % 16)


def sparse(images):
    lit = images.any(axis=1)
    event, plane, cell = np.nonzero(lit)
    ends = np.searchsorted(event, np.arange(N + 1))
    return {
        "event_pixels_coordinates": np.stack([np.zeros_like(plane), plane, cell], axis=1),
        "event_pixels_values": images[event, :, plane, cell],
        "event_compressed_index": np.stack([ends[:-1], ends[1:]], axis=1),
        "event_target": np.arange(N) % 16,
        "full_pixels_shape": np.array([2, 100, 80]),
    }


def test_sparse_layout(images, write):
    maps, truth = readers.read_maps(write(sparse(images)))
    np.testing.assert_array_equal(dense(maps), images)
    np.testing.assert_array_equal(truth["code"], np.arange(N) % 16)


@pytest.mark.parametrize("axes", layouts.AXES)
def test_the_order_of_the_axes_is_found_out(images, write, axes):
    path = write({"cvnmap": stored(images, axes), "label": np.arange(N) % 16})
    np.testing.assert_array_equal(dense(readers.read_maps(path, axes=axes).maps), images)
    for other in set(layouts.AXES) - {axes}:
        with pytest.raises(DataError, match=f"speckle.* give axes='{axes}'") as error:
            readers.read_maps(path, axes=other)
        assert "\n" not in str(error.value) and "maps.h5" in str(error.value)


def test_steep_tracks_are_not_taken_for_another_order(write):
    """Cosmics that light several cells of a plane look the same along the last axis."""
    random = np.random.default_rng(4)
    images = np.zeros((N, 2, 100, 80), np.uint8)
    for i, view in np.ndindex(N, 2):
        cell = np.arange(80)
        images[i, view, random.integers(80) + (cell / random.uniform(5, 9)).astype(int), cell] = 9
    for axes in layouts.AXES:
        path = write({"cvnmap": stored(images, axes)})
        np.testing.assert_array_equal(dense(readers.read_maps(path, axes=axes).maps), images)


def test_noise_alone_accuses_no_order(write):
    noise = (np.random.default_rng(3).random((40, 16000)) < 0.002).astype(np.uint8)
    for axes in layouts.AXES:
        assert len(readers.read_maps(write({"cvnmap": noise}), axes=axes).maps.offsets) == 41


def test_contiguity_of_a_line_and_of_lone_hits():
    image = np.zeros((1, 1, 10, 10), np.uint8)
    image[0, 0, np.arange(10), np.arange(10)] = 1
    assert layouts.contiguity(image) == 1.0
    image[:] = 0
    image[0, 0, ::2, ::3] = 1
    image[0, 0, 1, 0] = 1  # joins two others
    assert layouts.contiguity(image) == pytest.approx(3 / 21)
    assert layouts.contiguity(image[..., :0]) == 0.0


FLAT = ("cvnmap", "label", "energy")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a["cvnmap"].__setitem__(3, 0), r"1 of 30 maps are blank, the first in row 3"),
        (lambda a: a["cvnmap"].__setitem__(4, 255), r"1 of 30 maps are saturated.* row 4"),
        (lambda a: a["energy"].__setitem__(2, np.nan), "'energy' row 2 is nan"),
        (lambda a: a["energy"].__setitem__(5, -1.0), "row 5 is -1.0 GeV"),
        (lambda a: a["label"].__setitem__(6, 16), "code of row 6 is 16"),
        (lambda a: a.update(label=np.zeros(N - 1)), "'label' is float64 of shape"),
        (lambda a: a.update(label=np.array([b"numu"] * N)), "'label' is |S4"),
        (lambda a: a.update(cvnmap=a["cvnmap"][:, :16]), r"shape \(30, 16\), no images"),
        (lambda a: a.update(cvnmap=a["cvnmap"] / 255), "no whole levels"),
        (lambda a: a.update(cvnmap=a["cvnmap"] * np.nan), "no whole levels"),
        (lambda a: a.update(cvnmap=-1 * a["cvnmap"].astype(int)), "no whole levels"),
        (lambda a: a["label"].__setitem__(6, 2.5), "code of row 6 is 2.5"),
        (lambda a: a.update(cvnmap=a["cvnmap"][:0]), "'cvnmap' is empty"),
        (lambda a: a.update(cvnmap=np.uint8(3)), "'cvnmap' is empty"),
        (lambda a: a.pop("cvnmap"), "no known layout"),
        (lambda a: a.update(pixelmaps=a["cvnmap"]), "no known layout"),
    ],
)
def test_bad_values_are_one_line(images, write, change, message):
    arrays = {
        "cvnmap": stored(images, layouts.AXES[0]).copy(),
        "label": np.arange(N) % 16.0,
        "energy": np.ones(N),
    }
    change(arrays)
    with pytest.raises(DataError, match=message) as error:
        readers.read_maps(write(arrays))
    assert "\n" not in str(error.value) and "maps.h5" in str(error.value)


def test_blank_and_saturated_maps_on_request(images, write):
    flat = stored(images, layouts.AXES[0]).copy()
    flat[3], flat[4] = 0, 255
    maps = readers.read_maps(write({"cvnmap": flat}), keep_odd=True).maps
    np.testing.assert_array_equal(dense(maps).reshape(N, -1), flat)


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("rec.mc.nu/pdg", None, "no 'rec.mc.nu/pdg'"),
        ("rec.mc.nu/pdg", np.full((24, 1), 1e20), "no code"),
        ("rec.mc.nu/mode", np.ones((20, 1)), "with 24 events"),
        ("rec.mc.nu/E", np.full((24, 1), -2.0), "'energy' row . is -2.0 GeV"),
        ("rec.training.cvnmaps/evt", np.zeros((N - 1, 1), int), "with 30 events"),
        ("rec.mc.nu/evt", np.zeros((24, 1), int), "stands twice"),
        ("rec.mc.nu/evt", np.zeros((20, 1), int), "with 24 events"),
    ],
)
def test_bad_truth_tables_are_refused(images, write, name, values, message):
    arrays = caf(images)
    arrays.pop(name)
    if values is not None:
        arrays[name] = values
    with pytest.raises(DataError, match=message):
        readers.read_maps(write(arrays))


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("event_pixels_coordinates", lambda x: x + [0, 0, 60], "beyond"),
        ("event_pixels_coordinates", lambda x: x - [0, 1, 0], "beyond"),
        ("event_pixels_coordinates", lambda x: x * 0, "twice"),
        ("event_pixels_coordinates", lambda x: x[:-1], "has coordinates"),
        ("event_compressed_index", lambda x: x + [0, -1], "does not divide"),
        ("event_compressed_index", lambda x: x + 1, "does not divide"),
        ("event_pixels_values", lambda x: x[:, 0], "has coordinates"),
        ("event_pixels_values", lambda x: x / 7, "no whole levels"),
        ("event_pixels_coordinates", lambda x: x + 0.5, "give integers"),
        ("full_pixels_shape", lambda x: x[:2], "shapes"),
        ("full_pixels_shape", lambda x: x * [1, 10**9, 1], "declares images"),
        ("event_target", lambda x: x[1:], "'event_target' is"),
    ],
)
def test_bad_sparse_files_are_refused(images, write, name, change, message):
    arrays = sparse(images)
    arrays[name] = change(arrays[name])
    with pytest.raises(DataError, match=message):
        readers.read_maps(write(arrays))


def test_damaged_files_and_bombs_are_refused(images, tmp_path, write):
    hdf5.write(tmp_path / "own.h5", {"cvnmap": stored(images, layouts.AXES[0])})
    whole = (tmp_path / "own.h5").read_bytes()
    for end in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.h5").write_bytes(whole[:end])
        with pytest.raises(DataError, match="cut.h5"):
            readers.read_maps(tmp_path / "cut.h5")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    (tmp_path / "cut.h5").write_bytes(flipped)
    with pytest.raises(DataError, match="damaged"):
        readers.read_maps(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("cvnmap", (250_000_000, 16000), "u1", chunks=(1, 16000))
    assert (tmp_path / "bomb.h5").stat().st_size < 10_000
    with pytest.raises(DataError, match="over the limit"):
        readers.read_maps(tmp_path / "bomb.h5")


def test_unknown_options_are_refused(images, write):
    path = write({"cvnmap": stored(images, layouts.AXES[0])})
    with pytest.raises(ConfigError, match="axes"):
        readers.read_maps(path, axes="cell plane")
    with pytest.raises(ConfigError, match="layout"):
        readers.read_maps(path, layout="larcv")
    with pytest.raises(DataError, match="no 'event_pixels_coordinates'"):
        readers.read_maps(path, layout="sparse")
    with pytest.raises(DataError, match="not all -1 to 15"):
        readers.class_of(np.array([3, 16]))


def test_classes_of_codes():
    names = [layouts.CODES[c] for c in range(16)]
    expected = {"numu": 0, "nue": 1, "nutau": 2, "NC": 3, "elastic": 3, "cosmic": 4, "other": -1}
    found = readers.class_of(np.arange(16))
    assert found.tolist() == [expected[name.split()[0]] for name in names]
    assert readers.class_of(np.array([-1])).tolist() == [-1]


def test_real_nova_files_join_by_key(shared_data, tmp_path):
    total, inside = 0, 0
    for packed in sorted((shared_data / "nova" / "nova_h5").glob("*.h5.gz")):
        path = tmp_path / packed.stem
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        truth = readers.read_truth(path)
        arrays = hdf5.read(path)
        tables = {}
        for name in ("spill", "rec.me.trkkalman"):
            parts = {k: f"{name}/{k}" for k in layouts.KEYS}
            tables[name] = {k: arrays[part][:, 0] for k, part in parts.items() if part in arrays}
        spill = layouts.join(truth, tables["spill"])
        np.testing.assert_array_equal(tables["spill"]["evt"][spill], truth["evt"])
        tracks = tables["rec.me.trkkalman"]
        track = layouts.join(tracks, truth)
        keys = ("subrun", "evt", "subevt")
        slices = set(zip(*(truth[k] for k in keys), strict=True))
        expected = [row in slices for row in zip(*(tracks[k] for k in keys), strict=True)]
        np.testing.assert_array_equal(track >= 0, expected)
        total, inside = total + len(truth["code"]), inside + int((spill >= 0).sum())
        assert (truth["code"] == -1).all()  # detector data: no truth tables
        with pytest.raises(DataError, match="16"):  # who published them cut the images
            readers.read_maps(path)
    assert (total, inside) == (28127, 28127)


def partition(path):
    """Labels of the DUNE events, read from the opcodes of the pickle, which is not executed."""
    labels, names, last, row = {}, {}, None, None
    for opcode, value, _ in pickletools.genops(path.read_bytes()):
        if opcode.name == "BINUNICODE":
            last = value
        elif opcode.name == "BINPUT":
            names[value] = last
        elif opcode.name == "BINGET":
            row = labels[names[value]] = []
        elif opcode.name.startswith("BININT") and row is not None:
            row.append(value)
    return labels


def test_real_dune_events_and_their_labels(shared_data, tmp_path):
    folder = shared_data / "nova" / "dune_cvn" / "dataset"
    labels = partition(folder / "partition.p")
    assert sorted(labels, key=int) == [str(k) for k in range(20)]
    assert set(readers.read_maps(folder).truth["code"]) == {-1}  # images alone
    for k in range(20):
        antinu, flavour, mode, *counts = labels[str(k)]
        code = 13 if flavour == 3 else 4 * flavour + mode
        pdg = 1 if flavour == 3 else (14, 12, 16)[flavour] * (-1 if antinu else 1)
        lines = [code, 2.5, 1.5, 0, 0, 0, 1.0, pdg, *counts, 0, 0, 99]
        (tmp_path / f"event{k}.info").write_text("\n".join(map(str, lines)) + "\n")
        shutil.copy(folder / f"event{k}.gz", tmp_path)
    maps, truth = readers.read_maps(tmp_path)
    assert maps.shape == (3, 500, 500)
    # numbers of true events in the report that the network's authors publish beside them
    assert Counter(readers.class_of(truth["code"])) == {0: 4, 1: 8, 2: 3, 3: 5}
    assert Counter(truth["code"][truth["code"] < 12] % 4) == {0: 1, 1: 4, 2: 8, 3: 2}
    assert Counter(np.sign(truth["pdg"][truth["code"] < 12])) == {1: 9, -1: 6}
    assert [truth["n_protons"][k] for k in range(20)] == [labels[str(k)][3] for k in range(20)]
    lit = np.diff(maps.offsets)
    for k in (0, 10, 19):  # in the order of their numbers
        image = np.frombuffer(zlib.decompress((folder / f"event{k}.gz").read_bytes()), np.uint8)
        assert lit[k] == np.count_nonzero(image)
        np.testing.assert_array_equal(dense(maps, np.array([k])).ravel(), image)


@pytest.mark.parametrize("case", ["cut", "flipped", "bomb", "short", "info", "one info", "empty"])
def test_bad_dune_files_are_refused(tmp_path, case):
    size = {"bomb": 100_000_000, "short": 749_999}.get(case, 750_000)
    data = bytearray(zlib.compress(bytes([1]) + bytes(size - 1)))
    if case == "flipped":
        data[len(data) // 2] ^= 16
    if case != "empty":
        (tmp_path / "event1.gz").write_bytes(data[: -5 if case == "cut" else None])
    if case in ("info", "one info"):
        (tmp_path / "event1.info").write_text("0\n2.5\nnan\n" * 5)
    if case == "one info":
        (tmp_path / "event2.gz").write_bytes(data)
    with pytest.raises(DataError) as error:
        readers.read_maps(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_hits_of_a_flat_root_tree(tmp_path):
    lengths = np.array([2, 0, 3])
    flat = {"rec.hdr.run": np.array([1, 1, 2], np.int32)}
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    plane, energy = np.arange(5, dtype=np.int32), np.linspace(0.1, 0.5, 5)
    jagged = {"plane": root.Jagged(plane, offsets), "calE": root.Jagged(energy, offsets)}
    path = tmp_path / "caf.root"
    root.write(path, "rec", flat | jagged)
    names = {"run": "rec.hdr.run", "plane": "plane", "energy": "calE"}
    found = readers.read_hits(path, "rec", names)
    assert found["run"].tolist() == [1, 1, 2]
    np.testing.assert_array_equal(found["plane"].values, plane)
    np.testing.assert_array_equal(found["energy"].offsets, offsets)
    part = readers.read_hits(path, "rec", names, entries=(1, 3))
    np.testing.assert_array_equal(part["energy"].values, energy[2:])
    for bad in (np.nan, -0.1):
        energy[3] = bad
        root.write(tmp_path / f"{bad}.root", "rec", flat | jagged)
        with pytest.raises(DataError, match=r"'calE' row 3"):
            readers.read_hits(tmp_path / f"{bad}.root", "rec", names)
    with pytest.raises(DataError, match="calX"):
        readers.read_hits(path, "rec", {"energy": "calX"})


EVENT = """E {number} 1 5
U GEV CM
W 1.5
A 0 ProcID {process}
A 0 LabPos 10 20 30
P 1 0 14 0 0 2.0 2.0 0 4
P 2 0 1000060120 0 0 0 11.2 11.2 11
V -1 1 [1,2] @ 1 0 0 0
P 3 -1 {lepton} {px} 0 {pz} {energy} {mass} {status}
P 4 -1 2212 -0.5 0 0.4 1.15 0.938 1
P 5 -1 2212 0 0 0.1 0.9436 0.938 1
"""


def hepmc_file(path, *events):
    base = {"lepton": 13, "px": 0.5, "pz": 1.6, "energy": 1.68, "mass": 0.1057, "status": 1}
    body = "".join(EVENT.format(number=k, **base | event) for k, event in enumerate(events))
    head = "HepMC::Version 3.02.05\nHepMC::Asciiv3-START_EVENT_LISTING\n"
    path.write_text(head + body + "HepMC::Asciiv3-END_EVENT_LISTING\n")
    return path


def test_generated_events_become_interactions_and_particles(tmp_path):
    path = hepmc_file(
        tmp_path / "a.hepmc", {"process": 200}, {"process": 450, "lepton": 14},
        {"process": 600}, {"process": -1}, {"process": 301, "status": 2},
    )  # fmt: skip
    events, particles = readers.particles_from_hepmc(path)
    assert events.charged.tolist() == [True, False, True, True, True]
    assert events.mode.tolist() == [0, 1, 2, 3, 3] and (events.pdg == 14).all()
    np.testing.assert_allclose(events.vertex, [[11, 20, 30]] * 5)
    np.testing.assert_allclose(events.weight, 1.5)
    q2 = 2 * 2.0 * (1.68 - 1.6) - (1.68**2 - 0.5**2 - 1.6**2)  # 2 E (E' - p'cos) - m²
    np.testing.assert_allclose(events.q2, q2, rtol=1e-12)
    np.testing.assert_allclose(events.w**2, 0.939**2 + 2 * 0.939 * 0.32 - q2, rtol=1e-12)
    assert particles.event.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]
    assert particles.pdg.tolist()[-2:] == [2212, 2212]  # the decayed lepton does not fly
    np.testing.assert_allclose(particles.momentum[0], [0.5, 0, 1.6])


def test_events_without_neutrino_or_lepton_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"event 1: has no outgoing lepton"):
        readers.particles_from_hepmc(
            hepmc_file(tmp_path / "a", {"process": 200}, {"process": 200, "lepton": 14})
        )
    path = hepmc_file(tmp_path / "b", {"process": 200})
    path.write_text(path.read_text().replace("P 1 0 14", "P 1 0 11"))
    with pytest.raises(DataError, match="has no neutrino"):
        readers.particles_from_hepmc(path)
