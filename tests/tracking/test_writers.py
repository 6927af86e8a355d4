"""Collisions and tracks to files and back."""

import gzip
from typing import NamedTuple

import numpy as np
import pytest
import uproot

from physml.errors import DataError
from physml.io import root
from physml.tracking import writers
from physml.tracking.events import Collision, Hits, Particles, Tracks, tracks_of
from physml.tracking.geometry import trackml
from physml.tracking.readers import read_collisions
from physml.tracking.writers import Found

DETECTOR = trackml()


class Fit(NamedTuple):
    """The part of a fit that is written."""

    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    d0: np.ndarray
    z0: np.ndarray
    charge: np.ndarray
    chi2: np.ndarray
    ndf: np.ndarray
    good: np.ndarray


def collision(event=3, particles=20, noise=15):
    """Particles on straight lines through all barrel layers, and noise on these."""
    rng = np.random.default_rng(event)
    barrel = np.flatnonzero(DETECTOR.barrel)
    phi, slope = rng.uniform(-3, 3, particles + noise), rng.uniform(-0.3, 0.3, particles + noise)
    layer = np.concatenate([np.tile(barrel, particles), rng.choice(barrel, noise)])
    own = np.concatenate(
        [np.repeat(np.arange(particles), len(barrel)), np.arange(noise) + particles]
    )
    r = DETECTOR.place[layer]
    position = np.stack([r * np.cos(phi[own]), r * np.sin(phi[own]), r * slope[own]], axis=1)
    order = rng.permutation(len(own))
    hits = Hits(
        position[order], layer[order].astype(np.int32),
        rng.integers(-1, 500, len(own)).astype(np.int32), rng.permutation(len(own)) + 7,
    )  # fmt: skip
    pdg = rng.choice([13, -211, 2212], particles).astype(np.int32)
    made = Particles(
        rng.choice(2**62, particles) | 1 << 52, pdg,
        np.zeros(particles, np.int8), rng.normal(size=(particles, 3)),
        np.stack([np.cos(phi), np.sin(phi), slope], axis=1)[:particles],
    )  # fmt: skip
    made = made._replace(charge=np.where(made.pdg == 2212, 1, -1).astype(np.int8))
    particle = np.where(own < particles, own, -1)[order].astype(np.int32)
    return Collision(event, hits, made, particle)


def same(found, expected):
    assert found.event == expected.event
    for ours, theirs in ((found.hits, expected.hits), (found.particles, expected.particles)):
        assert (ours is None) == (theirs is None)
        for name in ours._fields if ours else ():
            a, b = getattr(ours, name), getattr(theirs, name)
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)
    if expected.particle is None:
        assert found.particle is None
    else:
        assert found.particle.dtype == np.int32
        np.testing.assert_array_equal(found.particle, expected.particle)


def without_truth(c):
    return c._replace(particles=None, particle=None)


def test_acts_files_give_the_same_collisions(tmp_path):
    made = [collision(k, particles=5 + k, noise=3 * k) for k in (4, 1, 9)]
    writers.write_collisions(tmp_path / "new", iter(made), DETECTOR)
    for path in (tmp_path / "new", tmp_path / "new" / "hits.root"):
        found = list(read_collisions(path, DETECTOR))
        assert len(found) == 3
        for ours, expected in zip(found, made, strict=True):
            same(ours, expected)
    for ours, expected in zip(
        read_collisions(tmp_path / "new", DETECTOR, truth=False), made, strict=True
    ):
        same(ours, without_truth(expected))


def test_files_have_the_branches_of_acts(tmp_path):
    one = collision()
    writers.write_collisions(tmp_path, [one], DETECTOR)
    with uproot.open(tmp_path / "hits.root") as file:
        hits = file["hits"].arrays(library="np")
    with uproot.open(tmp_path / "particles.root") as file:
        particles = file["particles"].arrays(library="np")
    np.testing.assert_array_equal(hits["tx"], one.hits.position[:, 0])
    np.testing.assert_array_equal(hits["volume_id"], DETECTOR.volume[one.hits.layer])
    assert set(hits["layer_id"]) == {2, 4, 6, 8} and set(hits["event_id"]) == {3}
    bits = {"vertex_primary": 12, "vertex_secondary": 12, "particle": 16, "generation": 8,
            "sub_particle": 16}  # fmt: skip
    for prefix, table in (
        ("barcode_", hits),
        ("", {n: c[0] for n, c in particles.items() if n[0] != "n"}),
    ):
        packed = 0
        for name, width in bits.items():
            part = table[prefix + name].astype(np.int64)
            assert (part < 1 << width).all()
            packed = packed << width | part
        names = np.append(one.particles.particle_id, 0)
        np.testing.assert_array_equal(packed, names[one.particle] if prefix else names[:-1])
    np.testing.assert_array_equal(particles["particle_hash"][0], one.particles.particle_id)
    np.testing.assert_array_equal(particles["q"][0], one.particles.charge)


def test_trackml_files_give_the_same_collision(tmp_path):
    made = [collision(k) for k in (1000, 7)]
    for one in made:
        writers.write_trackml(tmp_path, one, DETECTOR)
    assert (tmp_path / "event000001000-truth.csv.gz").is_file()
    for ours, expected in zip(read_collisions(tmp_path, DETECTOR), made[::-1], strict=True):
        same(ours, expected)
    text = gzip.decompress((tmp_path / "event000000007-particles.csv.gz").read_bytes()).decode()
    assert text.splitlines()[0] == "particle_id,vx,vy,vz,px,py,pz,q,nhits,particle_type"
    assert {line.split(",")[8] for line in text.splitlines()[1:]} == {"10"}


def test_collisions_without_truth(tmp_path):
    one = without_truth(collision())
    writers.write_collisions(tmp_path / "acts", [one], DETECTOR)
    writers.write_trackml(tmp_path / "trackml", one, DETECTOR)
    for folder in ("acts", "trackml"):
        assert len(list((tmp_path / folder).iterdir())) == 1
        (found,) = read_collisions(tmp_path / folder, DETECTOR)
        same(found, one)


def test_tracks_go_to_one_entry_each(tmp_path):
    first, second = collision(1), collision(2)
    tracks = [tracks_of([np.array([5, 2, 9]), np.array([1])]), tracks_of([np.arange(4)])]
    values = [np.arange(2) / 4, np.arange(1) + 0.5]
    fits = [Fit(v, v + 1, v + 2, v + 3, v + 4, v.astype(np.int8), v + 5, v.astype(int), v > 0)
            for v in values]  # fmt: skip
    held = [Found(*parts) for parts in zip((first, second), tracks, fits, strict=True)]
    path = tmp_path / "tracks.root"
    writers.write_tracks(path, held)
    with uproot.open(path) as file:
        tree = file["tracks"].arrays(library="np")
    assert tree["event_id"].tolist() == [1, 1, 2]
    for k, (c, rows) in enumerate(((first, [5, 2, 9]), (first, [1]), (second, range(4)))):
        assert tree["hit_id"][k].tolist() == c.hits.hit_id[list(rows)].tolist()
    for name in Fit._fields:
        expected = np.concatenate([getattr(fit, name) for fit in fits])
        assert np.array_equal(tree[name], expected) and tree[name].dtype == expected.dtype
    writers.write_tracks(path, [one._replace(fit=None) for one in held], overwrite=True)
    assert list(root.read(path, "tracks", ["event_id", "hit_id"])) == ["event_id", "hit_id"]
    with pytest.raises(DataError, match="holds no column 'pt'"):
        root.read(path, "tracks", ["pt"])


def test_no_tracks_and_empty_tracks(tmp_path):
    none = Found(collision(), tracks_of([]))
    writers.write_tracks(tmp_path / "a.root", [none])
    assert len(root.read(tmp_path / "a.root", "tracks", ["event_id"])["event_id"]) == 0
    writers.write_track_text(tmp_path / "a.txt", none.collision, none.tracks)
    assert (tmp_path / "a.txt").read_text() == ""


def test_text_has_a_line_for_each_track(tmp_path):
    one = collision()
    tracks = Tracks(np.array([0, 2, 3]), np.array([4, 0, 8]))
    writers.write_track_text(tmp_path / "a.txt", one, tracks)
    a, b, c = one.hits.hit_id[[4, 0, 8]]
    assert (tmp_path / "a.txt").read_text() == f"{a} {b}\n{c}\n"


def test_files_that_exist_are_kept(tmp_path):
    one = collision()
    writers.write_collisions(tmp_path, [one], DETECTOR)
    writers.write_trackml(tmp_path, one, DETECTOR)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    other = collision(particles=9)
    for write in (
        lambda **o: writers.write_collisions(tmp_path, [other], DETECTOR, **o),
        lambda **o: writers.write_trackml(tmp_path, other, DETECTOR, **o),
    ):
        with pytest.raises(DataError, match="exists already"):
            write()
        assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    writers.write_collisions(tmp_path, [other], DETECTOR, overwrite=True)
    (found,) = read_collisions(tmp_path / "hits.root", DETECTOR)
    same(found, other)


def test_what_cannot_be_written_is_refused(tmp_path):
    one = collision()
    cases = {
        "nothing to write": [],
        "event 3 is given twice": [one, one],
        "some collisions have truth and some not": [one, without_truth(collision(4))],
    }
    for said, given in cases.items():
        with pytest.raises(DataError, match=said):
            writers.write_collisions(tmp_path / "a", given, DETECTOR)
    tracks = tracks_of([np.array([1, 2])])
    fit = Fit(*[np.zeros(2)] * 9)
    for said, found in {
        "nothing to write": [],
        "event 3 is given twice": [Found(one, tracks)] * 2,
        "fits do not belong": [Found(one, tracks, fit)],
    }.items():
        with pytest.raises(DataError, match=said):
            writers.write_tracks(tmp_path / "a" / "t.root", found)
    with pytest.raises(DataError, match="fits do not belong"):
        half = Fit(*[np.zeros(1)] * 9)
        writers.write_tracks(
            tmp_path / "t.root", [Found(one, tracks, half), Found(collision(5), tracks)]
        )
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        writers.write_collisions(tmp_path / "file", [one], DETECTOR)
    with pytest.raises(DataError, match="cannot be written"):
        writers.write_track_text(tmp_path / "file" / "a.txt", one, tracks)
