"""Collisions from TrackML tables, ACTS files and other ROOT trees; every refusal."""

import re
import time
import tracemalloc

import numpy as np
import pytest
import uproot

from physml.errors import ConfigError, DataError
from physml.io import csv, root
from physml.io.root import Jagged
from physml.tracking import trees, writers
from physml.tracking.events import pt, select
from physml.tracking.geometry import trackml
from physml.tracking.readers import parse_mapping, read_collisions, read_detector
from physml.tracking.simulate import simulate

DETECTOR = trackml()
FLAT = "x=hx,y=hy,z=hz,volume=vol,layer=lay,event=evt"
TRUTH = FLAT + ",module=mod,hit_id=hid,particle=pid,px=px,py=py,pz=pz,charge=q"
EVENT = "event000000007"


def read(path, *args, **options):
    return list(read_collisions(path, DETECTOR, *args, **options))


def refused(path, *args, error=DataError, **options):
    """The single line of the error that reading raises."""
    with pytest.raises(error) as found:
        read(path, *args, **options)
    assert "\n" not in str(found.value) and len(str(found.value)) < 900
    return str(found.value)


def tables(n=40, seed=0):
    """TrackML tables of n hits: four particles on straight lines, every fifth hit noise."""
    rng = np.random.default_rng(seed)
    barrel = np.flatnonzero(DETECTOR.barrel)
    layer, own = barrel[np.arange(n) % 10], np.arange(n) // 10
    phi, slope, r = own * 1.3 + seed, own * 0.1, DETECTOR.place[layer]
    ids = 2**60 + 2**53 + 1 + np.arange(n // 10)  # no float holds them
    hits = {
        "hit_id": rng.permutation(n) + 1, "x": r * np.cos(phi), "y": r * np.sin(phi),
        "z": r * slope, "volume_id": DETECTOR.volume[layer].astype(np.int64),
        "layer_id": DETECTOR.layer[layer].astype(np.int64), "module_id": np.arange(n),
    }  # fmt: skip
    truth = {"hit_id": hits["hit_id"], "particle_id": np.where(np.arange(n) % 5, ids[own], 0)}
    order = rng.permutation(n)
    truth = {name: column[order] for name, column in truth.items()}
    phi = np.arange(n // 10) * 1.3 + seed
    momentum = {"px": np.cos(phi), "py": np.sin(phi), "pz": np.arange(n // 10) * 0.1}
    start = dict.fromkeys(("vx", "vy", "vz"), np.zeros(n // 10))
    particles = {"particle_id": ids, **start, **momentum, "q": 1 - 2 * (np.arange(n // 10) % 2)}
    return {"hits": hits, "truth": truth, "particles": particles}


def save(folder, made, event=EVENT, end=".csv.gz"):
    for name, table in made.items():
        csv.write(folder / f"{event}-{name}{end}", table)
    return folder


def changed(made, table, column, row, value):
    made[table][column] = np.array(made[table][column])
    made[table][column][row] = value
    return made


def flat(numbers=(3, 1, 8)):
    """Columns of a flat tree with an event for each number, and the tables they are from."""
    made = [tables(40, seed=k) for k in range(len(numbers))]
    parts = []
    for number, one in zip(numbers, made, strict=True):
        hits, particles = one["hits"], one["particles"]
        names = dict(zip(one["truth"]["hit_id"], one["truth"]["particle_id"], strict=True))
        pid = np.array([names[k] for k in hits["hit_id"]])
        row = np.maximum(np.searchsorted(particles["particle_id"], pid), 0) % 4
        column = {"hx": "x", "hy": "y", "hz": "z", "vol": "volume_id", "lay": "layer_id",
                  "mod": "module_id", "hid": "hit_id"}  # fmt: skip
        part = {name: np.asarray(hits[old]) for name, old in column.items()}
        part |= {"evt": np.full(40, number), "pid": pid}
        part |= {name: particles[name][row] for name in ("px", "py", "pz", "q")}
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, made


def check(found, made):
    """A collision holds what the tables say."""
    hits, truth = made["hits"], made["truth"]
    np.testing.assert_array_equal(found.hits.position.T, [hits[a] for a in "xyz"])
    np.testing.assert_array_equal(DETECTOR.volume[found.hits.layer], hits["volume_id"])
    np.testing.assert_array_equal(DETECTOR.layer[found.hits.layer], hits["layer_id"])
    np.testing.assert_array_equal(found.hits.hit_id, hits["hit_id"])
    names = dict(zip(truth["hit_id"], truth["particle_id"], strict=True))
    own = np.append(found.particles.particle_id, 0)[found.particle]
    assert own.tolist() == [names[k] for k in hits["hit_id"]]
    assert (found.particle == -1).mean() == 0.2


# Real data


@pytest.fixture(scope="module")
def real(shared_data):
    (found,) = read(shared_data / "tracking" / "trackml_event1000_barrel50")
    return found


def test_the_module_table_is_the_trackml_detector(shared_data):
    start = time.process_time()
    found = read_detector(shared_data / "tracking" / "detectors.csv.gz")
    assert time.process_time() - start < 1.0
    assert len(found.place) == 48
    for name in ("volume", "layer", "barrel", "pitch_u", "pitch_v", "thickness"):
        ours, theirs = getattr(found, name), getattr(DETECTOR, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    for name in ("place", "low", "high", "stagger"):
        np.testing.assert_allclose(getattr(found, name), getattr(DETECTOR, name), atol=0.003)
    assert found.field == 2.0 and found.rings is None
    assert read_detector(shared_data / "tracking" / "detectors.csv.gz", field=3.8).field == 3.8


def test_the_real_event_has_its_known_figures(real):
    assert real.event == 1000 and len(real.hits.layer) == 27_543
    assert len(real.particles.pdg) == 4093
    assert (real.particle == -1).mean() == pytest.approx(0.237, abs=5e-4)
    assert (pt(real.particles.momentum)[real.particle[real.particle >= 0]] > 1).sum() == 3107
    assert set(DETECTOR.volume[real.hits.layer]) == {8, 13, 17}
    assert [column.dtype.str[1:] for column in real.hits] == ["f8", "i4", "i4", "i8"]
    kinds = [column.dtype.str[1:] for column in real.particles]
    assert kinds == ["i8", "i4", "i1", "f8", "f8"] and real.particle.dtype == np.int32
    assert set(real.particles.charge) == {-1, 1} and not real.particles.pdg.any()
    assert real.particles.particle_id[0] == 963770663854669824


def test_real_hits_are_where_their_particles_went(real, shared_data):
    """Measured and true points of a particle agree within the pitch of the layer."""
    path = shared_data / "tracking" / "trackml_event1000_barrel50" / "event000001000-truth.csv.gz"
    truth = csv.read(path, {"hit_id": int} | dict.fromkeys(("tx", "ty", "tz"), float))
    np.testing.assert_array_equal(truth["hit_id"], real.hits.hit_id)
    true = np.stack([truth["tx"], truth["ty"], truth["tz"]], axis=1)
    own, layer = real.particle >= 0, real.hits.layer
    away = real.hits.position - true
    around = np.hypot(away[:, 0], away[:, 1])
    for volume in (8, 13, 17):
        here = own & (DETECTOR.volume[layer] == volume)
        k = layer[here][0]
        assert np.median(around[here]) < DETECTOR.pitch_u[k]
        # Uniform along the pitch: half of the hits within a quarter; more with shared charge.
        along = np.abs(away[here, 2])
        assert np.median(along) < DETECTOR.pitch_v[k] / 4
        assert np.quantile(along, 0.99) < DETECTOR.pitch_v[k] * 0.51
    # Particles of high pT start out in the direction of their first hits.
    fast = np.flatnonzero(own & (layer == 7) & (pt(real.particles.momentum)[real.particle] > 2))
    way = real.hits.position[fast] - real.particles.vertex[real.particle[fast]]
    p = real.particles.momentum[real.particle[fast]]
    near = np.hypot(*real.particles.vertex[real.particle[fast], :2].T) < 2
    cosine = (way * p).sum(axis=1) / np.linalg.norm(way, axis=1) / np.linalg.norm(p, axis=1)
    assert len(fast) > 50 and np.quantile(cosine[near], 0.05) > 0.999


def test_the_real_event_reads_the_same_from_file_and_without_truth(real, shared_data):
    path = shared_data / "tracking" / "trackml_event1000_barrel50" / "event000001000-hits.csv.gz"
    start = time.process_time()
    (again,) = read(path)
    assert time.process_time() - start < 1.0  # 0.15 s on the machine it was written on
    np.testing.assert_array_equal(again.particle, real.particle)
    (bare,) = read(path, truth=False)  # 5 pairs of hits share a place
    assert bare.particles is None and bare.particle is None
    np.testing.assert_array_equal(bare.hits.position, real.hits.position)
    place, count = np.unique(bare.hits.position, axis=0, return_counts=True)
    assert len(place) == 27_538 and count.max() == 2


def test_the_real_event_has_a_nearest_layer(real, tmp_path):
    x, y, z = real.hits.position.T
    root.write(tmp_path / "a.root", "t", {"x": x, "y": y, "z": z})
    (found,) = read(tmp_path / "a.root", "x=x,y=y,z=z")
    np.testing.assert_array_equal(found.hits.layer, real.hits.layer)


# TrackML tables


@pytest.mark.parametrize("end", [".csv", ".csv.gz"])
def test_tables_are_joined(tmp_path, end):
    made = {7: tables(), 8: tables(60, seed=3)}
    for event, one in made.items():
        save(tmp_path, one, f"event{event:09d}", end)
    for found, (event, one) in zip(read(tmp_path), made.items(), strict=True):
        assert found.event == event
        check(found, one)
    (alone,) = read(tmp_path / f"event000000008-hits{end}")
    check(alone, made[8])


def test_tables_of_codes_and_neutral_particles(tmp_path):
    made = tables()
    made["particles"] = {n: np.append(c, c[-1:]) for n, c in made["particles"].items()}
    made["particles"]["particle_id"][-1] = 5
    made["particles"]["q"][-1] = 0
    made["particles"]["particle_type"] = np.array([211, -211, 2212, 13, 22])
    (found,) = read(save(tmp_path, made))
    assert found.particles.pdg.tolist() == [211, -211, 2212, 13]
    check(found, made)


def test_events_without_truth(tmp_path):
    made = tables()
    save(tmp_path, {"hits": made["hits"]})
    (found,) = read(tmp_path)
    assert found.particles is None and found.particle is None
    np.testing.assert_array_equal(found.hits.hit_id, made["hits"]["hit_id"])


def test_particles_without_a_table_of_truth_are_said_aloud(tmp_path, capsys):
    made = tables()
    save(tmp_path, {"hits": made["hits"]})
    read(tmp_path)
    assert capsys.readouterr().err == ""
    save(tmp_path, {"particles": made["particles"]})
    (found,) = read(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert found.particle is None and line.startswith(f"{tmp_path / EVENT}-hits.csv.gz: ")
    assert f"{EVENT}-particles.csv.gz is beside it but no table of truth" in line
    read(tmp_path, truth=False)
    assert capsys.readouterr().err == ""


def test_one_hit_is_a_collision(tmp_path):
    made = {"hits": {name: column[:1] for name, column in tables()["hits"].items()}}
    (found,) = read(save(tmp_path, made))
    assert found.hits.position.shape == (1, 3)


BAD_TABLES = {
    "has no hits": lambda m: m | {"hits": {n: c[:0] for n, c in m["hits"].items()}},
    "x, y, z of row 3 are (nan, ": lambda m: changed(m, "hits", "x", 3, np.nan),
    "x, y, z of row 0 are ": lambda m: changed(m, "hits", "z", 0, np.inf),
    "hit_id 11 stands twice": lambda m: changed(
        changed(m, "hits", "hit_id", slice(0, 2), 11), "truth", "hit_id", slice(0, 2), 11
    ),
    "row 5 is in volume 99 layer 4, which the detector lacks; it has volume 7 (layers 2 4 6 8 10 "
    "12 14), volume 8 (layers 2 4 6 8)": lambda m: changed(
        changed(m, "hits", "volume_id", 5, 99), "hits", "layer_id", 5, 4
    ),
    "row 2 is in volume 8 layer 3": lambda m: changed(m, "hits", "layer_id", 2, 3),
    "'volume' goes from 8 to 4294967304": lambda m: changed(m, "hits", "volume_id", 0, 2**32 + 8),
    "1 of 40 hits are more than 20 mm from their layer, the first in row 0: (60, 0, 0) mm is 28 mm "
    "from volume 8 layer 2": lambda m: changed(m, "hits", "x", 0, 60.0),
    "is 109 mm from volume 8 layer 2": lambda m: changed(m, "hits", "z", 0, 600.0),
    "particles: row 1 has number 0, that of noise": lambda m: changed(
        m, "particles", "particle_id", 1, 0
    ),
    "8 hits are of particles that the table of particles lacks": lambda m: changed(
        m, "particles", "particle_id", 2, 77
    ),
    "particles: 77 stands twice": lambda m: changed(
        m, "particles", "particle_id", slice(1, 3), 77
    ),
    "has hits and charge 0": lambda m: changed(m, "particles", "q", 1, 0),
    "'charge' of row 1 is 0.5": lambda m: changed(
        m | {"particles": m["particles"] | {"q": np.ones(4)}}, "particles", "q", 1, 0.5
    ),
    "'charge' of row 2 is nan": lambda m: changed(
        m | {"particles": m["particles"] | {"q": np.ones(4)}}, "particles", "q", 2, np.nan
    ),
    "has charge 200 and PDG code 0": lambda m: changed(m, "particles", "q", 0, 200),
    "has charge 1 and PDG code 13": lambda m: (
        m | {"particles": m["particles"] | {"particle_type": np.array([13, -211, 211, -211])}}
    ),
    "px, py, pz of row 3 are (": lambda m: changed(m, "particles", "py", 3, -np.inf),
    "vx, vy, vz of row 0 are (nan, 0, 0)": lambda m: changed(
        m | {"particles": m["particles"] | {"vx": np.zeros(4)}}, "particles", "vx", 0, np.nan
    ),
    "has no momentum": lambda m: (
        m | {"particles": m["particles"] | dict.fromkeys(("px", "py", "pz"), np.zeros(4))}
    ),
    "names, but the hits lack, hit 999 (2 such hits)": lambda m: {
        **m, "truth": {"hit_id": np.append(m["truth"]["hit_id"], [999, 1000]),
                       "particle_id": np.append(m["truth"]["particle_id"], [0, 0])},
    },
    "has no row for hit ": lambda m: m | {"truth": {n: c[1:] for n, c in m["truth"].items()}},
    "names a hit twice": lambda m: m | {
        "truth": {n: np.append(c, c[:1]) for n, c in m["truth"].items()}
    },
    "has truth but no table of particles": lambda m: {n: m[n] for n in ("hits", "truth")},
    "holds no column 'z'": lambda m: (
        m | {"hits": {n: c for n, c in m["hits"].items() if n != "z"}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", BAD_TABLES)
def test_bad_tables_are_refused(tmp_path, said):
    save(tmp_path, BAD_TABLES[said](tables()))
    line = refused(tmp_path)
    assert said in line and str(tmp_path) in line and "; " in line
    if "particle" in said or "charge" in said or "momentum" in said:
        (found,) = read(tmp_path, truth=False)
        assert len(found.hits.layer) == 40


def test_units(tmp_path):
    (expected,) = read(save(tmp_path / "mm", tables()))
    for units, size in (("cm", 10), ("m", 1000)):
        made = tables()
        for table, names in (("hits", "xyz"), ("particles", ("vx", "vy", "vz"))):
            for name in names:
                made[table][name] = made[table][name] / size
        save(tmp_path / units, made)
        assert f"the numbers fit in {units}: give unit {units}" in refused(tmp_path / units)
        assert "fit in mm: give unit mm" in refused(tmp_path / "mm", unit=units)
        (found,) = read(tmp_path / units, unit=units)
        np.testing.assert_allclose(found.hits.position, expected.hits.position, rtol=1e-14)
    line = refused(tmp_path / "mm", unit="km", error=ConfigError)
    assert line == "unit: 'km' is unknown; give one of mm, cm, m"


def test_the_tolerance_is_an_option(tmp_path):
    save(tmp_path, changed(tables(), "hits", "x", 0, 60.0))
    assert len(read(tmp_path, tolerance=30.0)) == 1
    for bad in (0.0, -1.0, np.nan):
        assert "tolerance: is" in refused(tmp_path, tolerance=bad, error=ConfigError)


def test_hits_in_one_place(tmp_path):
    """Two particles may leave hits in one place, one particle may not; nor may many."""
    made = tables()
    hits, truth = made["hits"], made["truth"]
    names = dict(zip(truth["hit_id"], truth["particle_id"], strict=True))
    own = np.array([names[k] for k in hits["hit_id"]])
    for name in ("x", "y", "z"):
        hits[name][11] = hits[name][1]
    assert "are the same hit (1 such pairs)" in refused(save(tmp_path / "many", made))
    rows = {n: np.tile(c, 6) for n, c in hits.items()}
    turn = np.repeat(np.arange(6), 40)
    rows["x"], rows["y"] = (
        rows["x"] * np.cos(turn) - rows["y"] * np.sin(turn),
        rows["x"] * np.sin(turn) + rows["y"] * np.cos(turn),
    )
    rows["hit_id"] = np.arange(240)
    made["truth"] = {"hit_id": np.arange(240), "particle_id": np.tile(own, 6)}
    keep = (turn == 0) | (np.arange(240) % 40 != 11)  # one pair in 235: as decays leave
    made["hits"], made["truth"] = (
        {n: c[keep] for n, c in t.items()} for t in (rows, made["truth"])
    )
    assert len(read(save(tmp_path / "few", made))) == 1
    made["truth"]["particle_id"][11] = own[1]
    assert "rows 1 and 11 are the same hit" in refused(save(tmp_path / "same", made))


def test_folders_are_clear_or_refused(tmp_path):
    assert "holds no ...-hits.csv, hits.root or spacepoints.root" in refused(tmp_path)
    save(tmp_path, tables())
    assert "is not named ...-hits.csv" in refused(tmp_path / f"{EVENT}-truth.csv.gz")
    (tmp_path / "hits.root").write_text("")
    assert "holds hits.root and tables of hits" in refused(tmp_path)
    (tmp_path / "hits.root").unlink()
    (tmp_path / f"{EVENT}-truth.csv").write_text("hit_id,particle_id\n")
    assert "stands beside event000000007-truth.csv.gz" in refused(tmp_path)
    (tmp_path / f"{EVENT}-hits.csv").write_text("hit_id\n")
    assert "another table of hits of event 7" in refused(tmp_path)
    assert "is not a readable file" in refused(tmp_path / "absent")
    assert "is not a readable file" in refused(tmp_path / "absent-hits.csv")
    (tmp_path / "a.txt").write_text("no hits at all, but more than twenty bytes")
    assert "is not a ROOT file" in refused(tmp_path / "a.txt")


def test_damaged_tables_never_give_other_collisions(tmp_path):
    save(tmp_path, tables())
    (expected,) = read(tmp_path)
    rng = np.random.default_rng(0)
    refusals = 0
    for k in range(200):
        path = tmp_path / f"{EVENT}-{('hits', 'truth', 'particles')[k % 3]}.csv.gz"
        whole = path.read_bytes()
        damaged = bytearray(whole)
        if k % 2:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            (found,) = read(tmp_path)
        except DataError as error:
            refusals += 1
            assert "\n" not in str(error)
        else:
            pairs = zip(found[1] + found[2], expected[1] + expected[2], strict=True)
            for ours, theirs in pairs:
                np.testing.assert_array_equal(ours, theirs)
            np.testing.assert_array_equal(found.particle, expected.particle)
        path.write_bytes(whole)
    assert refusals > 190


# Module tables

MODULE = {
    "": 0, "volume_id": 8, "layer_id": 2, "cx": 32.0, "cy": 0.0, "cz": 5.0, "rot_zw": 0.0,
    "module_t": 0.15, "module_hv": 36.0, "pitch_u": 0.05, "pitch_v": 0.06,
}  # fmt: skip


def modules(path, *changes):
    rows = [MODULE | change for change in changes]
    csv.write(path, {name: np.array([row[name] for row in rows]) for name in MODULE})
    return path


def test_layers_of_few_modules(tmp_path):
    path = modules(
        tmp_path / "a.csv", {}, {"cx": 0.0, "cy": -32.5, "cz": -70.0},
        {"volume_id": 3, "layer_id": 9, "rot_zw": -1.0, "cx": 0.0, "cy": 60.0, "cz": -600.0},
    )  # fmt: skip
    found = read_detector(path)
    assert found.volume.tolist() == [3, 8] and found.layer.tolist() == [9, 2]
    assert found.barrel.tolist() == [False, True]
    np.testing.assert_allclose(found.place, [-600.0, 32.25])
    np.testing.assert_allclose(found.low, [24.0, -106.0])
    np.testing.assert_allclose(found.high, [96.0, 41.0])
    np.testing.assert_allclose(found.stagger, [0.0, 0.25])
    np.testing.assert_allclose(found.thickness, 0.3)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"rot_zw": 1.0}, "volume 8 layer 2: has modules along z and across it"),
        ({"pitch_v": 1.2}, "has modules that differ in 'pitch_v'"),
        ({"cx": np.nan}, "'cx' is not finite"),
    ],
)
def test_bad_module_tables_are_refused(tmp_path, change, said):
    with pytest.raises(DataError, match=said):
        read_detector(modules(tmp_path / "a.csv", {}, change))
    (tmp_path / "b.csv").write_text(",".join(MODULE) + "\n")
    with pytest.raises(DataError, match="holds no modules"):
        read_detector(tmp_path / "b.csv")


# Momenta and the curvature of hits


def saved(folder, collision, scale, kept):
    """A collision in ACTS's files, its momenta scaled, with the hits of some particles only."""
    particles = collision.particles
    one = select(collision, np.isin(collision.particle, kept))
    table = particles._replace(momentum=particles.momentum * scale)
    writers.write_collisions(folder, [one._replace(particles=table)], DETECTOR)
    return folder / "hits.root"


def test_momenta_in_another_unit_are_refused(tmp_path):
    made = simulate((7, 0), 3.0, DETECTOR)
    everything = np.arange(-1, len(made.particles.pdg))
    hits = np.bincount(made.particle + 1)[1:]
    (found,) = read(saved(tmp_path / "GeV", made, 1.0, everything))
    np.testing.assert_array_equal(found.particles.charge, made.particles.charge)
    for name, scale, told in (("MeV", 1e3, r"1\.0\de\+03"), ("TeV", 1e-3, r"0\.0010\d")):
        path = saved(tmp_path / name, made, scale, everything)
        line = refused(path)
        said = f"hits.root, event .* momenta are {told} times those that the hits bend with at 2 T"
        assert re.search(said, line)
        assert line.endswith("give px, py, pz in GeV (MeV: divide them by 1000)")
        assert read(path, truth=False)[0].particles is None
    for few in (np.flatnonzero(hits >= 5)[:4], np.flatnonzero((hits > 0) & (hits < 5))):
        assert len(read(saved(tmp_path / f"few{len(few)}", made, 1e3, few))) == 1  # cannot tell
    secondaries = np.flatnonzero(np.hypot(*made.particles.vertex.T[:2]) > 1)
    assert len(read(saved(tmp_path / "secondaries", made, 1.0, secondaries))) == 1


def test_straight_particles_tell_no_momentum(tmp_path):
    made = tables()
    for axis in ("px", "py", "pz"):
        made["particles"][axis] = made["particles"][axis] * 1e6
    assert len(read(save(tmp_path, made))) == 1


# ROOT trees by a mapping


def test_mappings_are_read():
    assert parse_mapping(" x=hit.x, y = b ,z=c") == {"x": "hit.x", "y": "b", "z": "c"}
    for text, said in {
        "": "'' is not name=column", "x": "'x' is not name=column", "x=": "is not name=column",
        "x=a,x=b": "names 'x' twice", "x=a,": "is not name=column",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            parse_mapping(text)


@pytest.mark.parametrize(
    "mapping, said",
    [
        ("x=a,y=b", "lacks z; name the column of z"),
        ("x=a,y=b,z=c,w=d", "'w' is unknown; known: x, y, z, event"),
        ("x=a,y=b,z=c,volume=d", "lacks layer"),
        (
            "x=a,y=b,z=c,particle=d",
            "lacks px, py, pz, charge; name the column of px, or read without truth",
        ),
        ("x=a,y=b,z=c,px=d", "lacks particle"),
        ("x=a,y=b,z=c,geometry=g,volume=v,layer=l", "gives layers and modules twice"),
    ],
)
def test_incomplete_mappings_are_refused(tmp_path, mapping, said):
    """Before any file is opened."""
    with pytest.raises(ConfigError) as error:
        read_collisions(tmp_path / "absent.root", DETECTOR, mapping)
    assert said in str(error.value)


def test_flat_trees(tmp_path):
    columns, made = flat()
    root.write(tmp_path / "a.root", "t", columns)
    found = read(tmp_path / "a.root", TRUTH)
    assert [one.event for one in found] == [3, 1, 8]  # the order of the file
    for one, expected in zip(found, made, strict=True):
        check(one, expected)
        assert one.hits.module.tolist() == list(range(40))
        assert not one.particles.vertex.any() and not one.particles.pdg.any()
        np.testing.assert_array_equal(one.particles.charge, expected["particles"]["q"])
    (whole,) = read(tmp_path / "a.root", FLAT.replace(",event=evt", ""), tree="t")
    assert whole.event == 0 and len(whole.hits.layer) == 120
    assert whole.hits.hit_id.tolist() == list(range(120)) and set(whole.hits.module) == {-1}
    bare = read(tmp_path / "a.root", parse_mapping(TRUTH), truth=False)
    assert [one.particles for one in bare] == [None] * 3


def test_what_a_mapping_leaves_to_guess_is_said_aloud(tmp_path, capsys):
    columns, _ = flat()
    root.write(tmp_path / "a.root", "t", columns | dict.fromkeys(("vx", "vy"), columns["px"]))
    read(tmp_path / "a.root", TRUTH + ",vx=vx,vy=vy")
    vertex, pdg = capsys.readouterr().err.splitlines()  # once, not for each event
    start = f"{tmp_path / 'a.root'}: the mapping names no "
    assert vertex.startswith(start + "vz: ") and "beam" in vertex
    assert pdg.startswith(start + "pdg: ") and "electrons" in pdg
    read(tmp_path / "a.root", TRUTH, truth=False)
    read(tmp_path / "a.root", FLAT)
    refused(tmp_path / "absent.root", TRUTH)  # nothing is said of what was not used
    root.write(tmp_path / "b.root", "t", columns | {"hx": np.append(columns["hx"][1:], np.nan)})
    refused(tmp_path / "b.root", TRUTH)
    assert capsys.readouterr().err == ""


def test_one_of_several_trees_is_named(tmp_path):
    columns, made = flat()
    with uproot.recreate(tmp_path / "a.root") as file:
        file["first"], file["second"] = {"px": columns["px"]}, columns
    line = refused(tmp_path / "a.root", TRUTH)
    assert line.endswith("a.root: holds 2 trees; name one (--tree) of first, second")
    check(read(tmp_path / "a.root", TRUTH, tree="second")[0], made[0])


def test_jagged_trees_are_the_same(tmp_path):
    columns, made = flat()
    offsets = np.array([0, 40, 80, 120])
    lists = {name: Jagged(column, offsets) for name, column in columns.items() if name != "evt"}
    root.write(tmp_path / "a.root", "t", lists | {"evt": np.array([3, 1, 8])})
    for one, expected in zip(read(tmp_path / "a.root", TRUTH), made, strict=True):
        check(one, expected)
    numbers = [one.event for one in read(tmp_path / "a.root", FLAT.replace(",event=evt", ""))]
    assert numbers == [0, 1, 2]
    arrays = {name: column.reshape(3, 40) for name, column in columns.items() if name != "evt"}
    root.write(tmp_path / "b.root", "t", arrays | {"evt": np.array([3, 1, 8])})
    for one, expected in zip(read(tmp_path / "b.root", TRUTH), made, strict=True):
        check(one, expected)


def test_whole_numbers_may_be_floats(tmp_path):
    columns, made = flat()
    small = {name: columns[name].astype(np.float32) for name in ("vol", "lay", "evt", "mod", "q")}
    root.write(tmp_path / "a.root", "t", columns | small)
    check(read(tmp_path / "a.root", TRUTH)[0], made[0])
    root.write(tmp_path / "b.root", "t", columns | {"pid": columns["pid"].astype(np.float64)})
    assert "'particle' of row 1 is 1.16" in refused(tmp_path / "b.root", TRUTH)
    root.write(tmp_path / "c.root", "t", columns | {"lay": columns["lay"] + 0.5})
    assert "'layer' of row 0 is 2.5; give whole numbers" in refused(tmp_path / "c.root", TRUTH)


def test_bad_trees_are_refused(tmp_path):
    columns, _ = flat()
    path = tmp_path / "a.root"
    root.write(path, "t", columns)
    line = refused(path, FLAT.replace("hx", "hxx"))
    assert "holds no column 'hxx'; did you mean 'hx'?" in line
    assert "holds neither the tree 'hits' nor 'spacepoints'" in refused(path)
    assert "give a mapping (--mapping); it holds t" in refused(path)
    assert "holds no tree 'u'" in refused(path, FLAT, tree="u")
    assert "tree: changes nothing without" in refused(path, tree="t", error=ConfigError)

    mixed = columns | {"evt": np.r_[columns["evt"][:100], [3] * 20]}
    root.write(path, "t", mixed, overwrite=True)
    given = read_collisions(path, DETECTOR, FLAT)
    with pytest.raises(
        DataError, match="rows of event 3 stand in 2 places; sort the tree by 'evt'"
    ):
        next(given)  # before any event is given
    other = columns | {"px": np.arange(120.0)}
    root.write(path, "t", other, overwrite=True)
    assert "'px' differs among the hits of particle 11" in refused(path, TRUTH)
    empty = {name: column[:0] for name, column in columns.items()}
    root.write(path, "t", empty, overwrite=True)
    for mapping in (FLAT, FLAT.replace(",event=evt", "")):
        assert "no hits" in refused(path, mapping)
    lists = {n: Jagged(c[:80], np.array([0, 40, 40, 80])) for n, c in columns.items() if n != "evt"}
    root.write(path, "t", lists | {"evt": np.arange(3)}, overwrite=True)
    assert "event 1: has no hits" in refused(path, FLAT)
    odd = lists | {"hy": Jagged(columns["hy"][:80], np.array([0, 39, 40, 80]))}
    root.write(path, "t", odd | {"evt": np.arange(3)}, overwrite=True)
    assert "entry 0: columns differ in length: {'x': 40, 'y': 39" in refused(path, FLAT)
    root.write(
        path, "t", {n: c[:3] for n, c in columns.items()} | {"lay": lists["lay"]}, overwrite=True
    )
    assert "'layer' holds lists in a tree of one hit an entry" in refused(path, FLAT)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is truncated" in refused(path, FLAT)


def test_many_events_need_little_memory(tmp_path, monkeypatch):
    """A tree of 24 MB in blocks of 1 MB, which end within events."""
    monkeypatch.setattr(trees, "BLOCK_BYTES", 1 << 20)
    n, events = 4000, 150
    columns, _ = flat((1,))
    turn = np.repeat(np.arange(n // 40) * 0.01, 40)
    one = {name: np.tile(column, n // 40) for name, column in columns.items()}
    one["hx"], one["hy"] = (
        one["hx"] * np.cos(turn) - one["hy"] * np.sin(turn),
        one["hx"] * np.sin(turn) + one["hy"] * np.cos(turn),
    )
    one = {name: one[name] for name in ("hx", "hy", "hz", "vol", "lay")}
    many = {name: np.tile(column, events) for name, column in one.items()}
    root.write(tmp_path / "a.root", "t", many | {"evt": np.repeat(np.arange(events), n)})
    size = sum(column.nbytes for column in many.values())
    del many
    tracemalloc.start()
    for k, found in enumerate(read_collisions(tmp_path / "a.root", DETECTOR, FLAT)):
        assert found.event == k and len(found.hits.layer) == n
        np.testing.assert_array_equal(found.hits.position[:, 0], one["hx"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert k == events - 1
    assert peak < size / 2, (peak, size)


# ACTS


NAMES = ("vertex_primary", "vertex_secondary", "particle", "generation", "sub_particle")


def acts(folder, form, order=(1, 0), hits_change=None, particles_change=None):
    """Two events of files as ACTS writes them, in one of the forms that name particles."""
    made = [tables(40, seed=k) for k in range(2)]
    hits, particles = [], []
    for event, one in enumerate(made):
        h, p, t = one["hits"], one["particles"], one["truth"]
        own = dict(zip(t["hit_id"], t["particle_id"], strict=True))
        row = np.searchsorted(p["particle_id"], [own[k] for k in h["hit_id"]])
        noise = np.array([own[k] == 0 for k in h["hit_id"]])
        # Particle k: vertex 2, number 1 + k // 2, generation k % 2, descendant 65536 * (k % 2).
        k = np.arange(4)
        code = np.stack([k * 0 + 2, k * 0, 1 + k // 2, k % 2, k % 2 * 65536], axis=1)
        code = code.astype(np.uint32)
        of_hit = np.where(noise[:, None], 0, code[row % 4]).astype(np.uint32)
        part = {
            "event_id": np.full(40, event, np.uint32), "tx": h["x"].astype(np.float32),
            "ty": h["y"].astype(np.float32), "tz": h["z"].astype(np.float32),
            "index": np.arange(40, dtype=np.int32), "volume_id": h["volume_id"].astype(np.uint32),
            "layer_id": h["layer_id"].astype(np.uint32),
            "sensitive_id": h["module_id"].astype(np.uint32),
            "geometry_id": h["volume_id"].astype(np.uint64) << 56
            | h["layer_id"].astype(np.uint64) << 36 | h["module_id"].astype(np.uint64) << 8,
        }  # fmt: skip
        number = np.array([2**63 + 9, 7, 8, 2**53 + 1], np.uint64)
        own_columns = {
            "particle_type": np.array([211, -211, 2212, 13], np.int32),
            "q": p["q"].astype(np.float32),
            **{name: p[name].astype(np.float32) for name in ("vx", "vy", "vz", "px", "py", "pz")},
            **dict(zip(NAMES, code.T, strict=True)),
        }  # fmt: skip
        if form == "particle_id":
            part["particle_id"] = np.where(noise, np.uint64(0), number[row % 4])
            own_columns["particle_id"] = number
        elif form == "barcode":
            part["barcode"] = of_hit
            own_columns["particle_hash"] = number
        else:
            part |= {f"barcode_{n}": c for n, c in zip(NAMES, of_hit.T, strict=True)}
            own_columns["particle_hash"] = number
        hits.append(part)
        particles.append(own_columns)
    joined = {name: np.concatenate([part[name] for part in hits]) for name in hits[0]}
    if form == "barcode":
        joined["barcode"] = Jagged(joined["barcode"].ravel(), np.arange(0, 401, 5))
    lists = {
        name: Jagged(
            np.concatenate([particles[k][name] for k in order]), np.arange(len(order) + 1) * 4
        )
        for name in particles[0]
    }
    lists["event_id"] = np.array(order, np.uint32)
    root.write(folder / "hits.root", "hits", joined | (hits_change or {}))
    root.write(folder / "particles.root", "particles", lists | (particles_change or {}))
    return made


@pytest.mark.parametrize("form", ["particle_id", "barcode", "barcode_"])
def test_acts_hits_and_particles(tmp_path, form):
    made = acts(tmp_path, form)
    for path in (tmp_path, tmp_path / "hits.root"):
        found = read(path)
        assert [one.event for one in found] == [0, 1]
        for one, expected in zip(found, made, strict=True):
            xyz = [expected["hits"][a].astype(np.float32) for a in "xyz"]
            np.testing.assert_array_equal(one.hits.position.T, xyz)
            np.testing.assert_array_equal(one.hits.module, expected["hits"]["module_id"])
            truth = dict(zip(*expected["truth"].values(), strict=True))
            names = np.array([truth[k] for k in expected["hits"]["hit_id"]])
            rows = np.searchsorted(expected["particles"]["particle_id"], names)
            np.testing.assert_array_equal(one.particle, np.where(names, rows, -1))
            assert one.particles.pdg.tolist() == [211, -211, 2212, 13]
            assert one.particles.particle_id.tolist() == [9 - 2**63, 7, 8, 2**53 + 1]


def test_acts_hits_alone(tmp_path):
    acts(tmp_path / "a", "barcode_")
    (tmp_path / "a" / "particles.root").rename(tmp_path / "initial.root")
    line = refused(tmp_path / "a")
    assert "particles.root is not beside it; put particles.root beside it, or" in line
    assert [one.particles for one in read(tmp_path / "a", truth=False)] == [None, None]
    found = read(tmp_path / "a", particles=tmp_path / "initial.root")
    assert [len(one.particles.pdg) for one in found] == [4, 4]
    acts(tmp_path / "b", "particle_id", order=(1,))
    assert "particles.root: has no event 0; give particles of these" in refused(tmp_path / "b")


def test_acts_files_with_faults(tmp_path):
    bad = {"vx": Jagged(np.zeros(8), np.array([0, 3, 8]))}
    acts(tmp_path / "a", "particle_id", particles_change=bad)
    assert "columns differ in length" in refused(tmp_path / "a")
    other = {"sub_particle": Jagged(np.arange(8), np.array([0, 4, 8]))}
    acts(tmp_path / "b", "barcode_", particles_change=other)
    assert "hits are of particles that the table of particles lacks" in refused(tmp_path / "b")
    wrong = {"q": Jagged(np.ones(8, np.float32), np.array([0, 4, 8]))}
    acts(tmp_path / "c", "barcode_", particles_change=wrong)
    assert "7 has charge 1 and PDG code -211" in refused(tmp_path / "c")
    short = {"barcode": Jagged(np.ones(320, np.uint32), np.arange(0, 321, 4))}
    acts(tmp_path / "d", "barcode", hits_change=short)
    assert "'barcode' holds lists in a tree of one hit" in refused(tmp_path / "d")
    acts(
        tmp_path / "e",
        "barcode",
        particles_change={"px": Jagged(np.full(8, np.nan), np.array([0, 4, 8]))},
    )
    assert "event 0, particles: px, py, pz of row 0 are (nan" in refused(tmp_path / "e")


def test_acts_spacepoints(tmp_path):
    acts(tmp_path / "a", "barcode_")
    hits = root.read(
        tmp_path / "a" / "hits.root", "hits", ["event_id", "geometry_id", "tx", "ty", "tz"]
    )
    points = {name.removeprefix("t"): column for name, column in hits.items()}
    root.write(tmp_path / "b" / "spacepoints.root", "spacepoints", points)
    for path in (tmp_path / "b", tmp_path / "b" / "spacepoints.root"):
        for one, expected in zip(read(path), read(tmp_path / "a", truth=False), strict=True):
            assert one.particles is None
            for ours, theirs in zip(one.hits, expected.hits, strict=True):
                np.testing.assert_array_equal(ours, theirs)
