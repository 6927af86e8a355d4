"""HepMC3 ascii: hand-written events, the library itself, and damage."""

import gzip

import numpy as np
import pytest

from physml.errors import DataError
from physml.io import hepmc

HEAD = "HepMC::Version 3.02.05\nHepMC::Asciiv3-START_EVENT_LISTING\n"
RUN = "W CV\\|other\nT GENIE\\|3.04\\|\nA NuHepMC.Version.Major 1\n"
FIRST = """E 7 2 6 @ 1.0e+00 0.0e+00 2.0e+00 0.0e+00
U GEV MM
W 2.5e+00 1.0e+00
A 0 ProcId 201
A 0 LabPos 100.0 200.0 300.0 0.0
A 1 flow 3
P 1 0 14 0.0e+00 0.0e+00 2.0e+00 2.0e+00 0.0e+00 4
P 2 0 1000060120 0.0e+00 0.0e+00 0.0e+00 1.12e+01 1.12e+01 11
V -1 1 [1,2]
P 3 -1 13 3.0e-01 0.0e+00 1.5e+00 1.6e+00 1.057e-01 1
P 4 -1 111 0.0e+00 0.0e+00 2.0e-01 2.4e-01 1.35e-01 2
V -2 0 [4] @ 4.0e+00 5.0e+00 6.0e+00 0.0e+00
P 5 -2 22 0.0e+00 0.0e+00 1.0e-01 1.2e-01 0.0e+00 1
P 6 -2 22 0.0e+00 0.0e+00 1.0e-01 1.2e-01 0.0e+00 1
"""
SECOND = """E 9 1 3
U MEV CM
P 1 0 -12 0.0e+00 0.0e+00 3.0e+03 3.0e+03 0.0e+00 4
P 2 1 -11 0.0e+00 1.0e+02 2.9e+03 2.9017e+03 5.11e-01 1
P 3 1 2112 0.0e+00 -1.0e+02 1.0e+02 9.5e+02 9.396e+02 1
"""
END = "HepMC::Asciiv3-END_EVENT_LISTING\n\n"
TEXT = HEAD + RUN + FIRST + SECOND + END


@pytest.fixture
def write(tmp_path):
    def write(text=TEXT, name="a.hepmc", zipped=False):
        data = text.encode() if isinstance(text, str) else text
        (tmp_path / name).write_bytes(gzip.compress(data) if zipped else data)
        return tmp_path / name

    return write


@pytest.mark.parametrize("zipped", [False, True])
def test_numbers_and_units_of_two_events(write, zipped):
    found = hepmc.read(write(zipped=zipped))
    assert found["number"].tolist() == [7, 9] and found["weight"].tolist() == [2.5, 1.0]
    assert found["process"].tolist() == [201, -1] and found["beam_pdg"].tolist() == [14, -12]
    np.testing.assert_allclose(found["beam"], [[0, 0, 2, 2], [0, 0, 3, 3]])
    np.testing.assert_allclose(found["lab_position"], [[10, 20, 30], [0, 0, 0]])
    assert found["particle_event"].tolist() == [0, 0, 0, 1, 1]
    assert found["pdg"].tolist() == [13, 22, 22, -11, 2112]
    np.testing.assert_allclose(
        found["momentum"][[0, 3]], [[0.3, 0, 1.5, 1.6], [0, 0.1, 2.9, 2.9017]]
    )
    # no position of its own: where the event is (mm to cm); the decay has one
    np.testing.assert_allclose(
        found["position"], [[0.1, 0, 0.2], *[[0.4, 0.5, 0.6]] * 2, *[[0] * 3] * 2]
    )


def test_decayed_particles_on_request_and_parts_of_any_size(write):
    path = write()
    assert hepmc.read(path, statuses=(1, 2))["status"].tolist() == [1, 2, 1, 1, 1, 1]
    parts = list(hepmc.iterate(path, step=1))
    assert [part["particle_event"].tolist() for part in parts] == [[0, 0, 0], [0, 0]]
    np.testing.assert_array_equal(
        np.concatenate([part["momentum"] for part in parts]), hepmc.read(path)["momentum"]
    )


def test_the_library_reads_and_writes_the_same(write, tmp_path):
    pyhepmc = pytest.importorskip("pyhepmc")
    random = np.random.default_rng(0)
    path = tmp_path / "library.hepmc"
    expected = []
    with pyhepmc.open(path, "w") as file:
        for k in range(5):
            unit = pyhepmc.Units.GEV if k % 2 else pyhepmc.Units.MEV
            event = pyhepmc.GenEvent(unit, pyhepmc.Units.CM if k % 3 else pyhepmc.Units.MM)
            event.event_number, event.weights = 10 + k, [0.5 * k + 1]
            make = lambda code, status: pyhepmc.GenParticle(  # noqa: E731
                (*random.normal(size=3), 9.0), code, status
            )
            beam, decayed = make(14, 4), make(111, 2)
            vertex = pyhepmc.GenVertex((*random.normal(size=3), 0.0))
            later = pyhepmc.GenVertex((*random.normal(size=3), 0.0) if k < 3 else (0, 0, 0, 0))
            vertex.add_particle_in(beam)
            for particle in (make(13, 1), make(2212, 1), decayed):
                vertex.add_particle_out(particle)
            later.add_particle_in(decayed)
            later.add_particle_out(make(22, 1))
            event.add_vertex(vertex)
            event.add_vertex(later)
            file.write(event)
    with pyhepmc.open(path) as file:
        for event in file:
            event.set_units(pyhepmc.Units.GEV, pyhepmc.Units.CM)
            expected += [
                (event.event_number, event.weights[0], p.pid, *list(p.momentum),
                 *list(p.production_vertex.position)[:3])
                for p in event.particles if p.status == 1
            ]  # fmt: skip
    found = hepmc.read(path)
    of = found["particle_event"]
    columns = [found["number"][of], found["weight"][of], found["pdg"]]
    table = np.column_stack([*columns, found["momentum"], found["position"]])
    assert len(expected) == 15
    np.testing.assert_allclose(table, expected, rtol=1e-12, atol=1e-14)
    with pyhepmc.open(write()) as file:  # and the library reads what the tests write by hand
        sizes = [(event.event_number, len(event.particles), len(event.vertices)) for event in file]
    assert sizes == [(7, 6, 2), (9, 3, 1)]


def test_every_truncation_is_refused(write):
    for zipped in (False, True):
        whole = write(zipped=zipped).read_bytes()
        for end in range(0, len(whole) - 34 * (not zipped), 37):
            with pytest.raises(DataError) as error:
                hepmc.read(write(whole[:end]))
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("Asciiv3-START", "IO_GenEvent-START", "no HepMC3 ascii file"),
        ("E 9 1 3", "E 9 1 4", "announces"),
        ("E 7 2 6", "E 7 3 6", "announces"),
        ("P 4 -1 111", "P 4 -3 111", "cannot be read"),
        ("P 4 -1 111", "P 5 -1 111", "damaged line"),
        ("[4] @ 4.0e+00", "[6] @ 4.0e+00", "cannot be read"),
        ("[4] @ 4.0e+00", "[4] @ nan", "damaged line"),
        ("U MEV CM", "U TEV CM", "units"),
        ("U MEV CM\n", "", "units"),
        ("2.9017e+03", "nan", "not finite"),
        ("2.9017e+03", "-2.9017e+03", "negative energy"),
        ("2.9017e+03", "2.9o17e+03", "cannot be read"),
        ("W 2.5e+00", "W inf", "not finite"),
        ("P 2 1 -11", "Q 2 1 -11", "damaged line"),
        (FIRST + SECOND, "", "holds no event"),
        ("P 1 0 -12", "\xff", "damaged line"),
        ("300.0 0.0\n", "\n", "cannot be read"),
        ("E 7 2 6 @ 1.0e+00 0.0e+00 2.0e+00 0.0e+00", "E 7 2 6 @ 1.0e+00 0.0", "cannot be read"),
        ("P 3 -1 13", "P 3 -1 130000000000", "cannot be read"),
        ("A 0 ProcId 201", "A 0 ProcId", "damaged line"),
        ("A 0 ProcId 201", "A 0 ProcId QE", "cannot be read"),
    ],
)
def test_damage_is_named(write, old, new, message):
    assert TEXT.count(old) == 1
    with pytest.raises(DataError, match=message) as error:
        hepmc.read(write(TEXT.replace(old, new)))
    assert "\n" not in str(error.value) and "a.hepmc" in str(error.value)


def test_what_is_no_file_is_refused(tmp_path, write):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="not a readable file"):
            hepmc.read(path)
    with pytest.raises(DataError, match="line beyond"):
        hepmc.read(write(HEAD.encode() + b"A" * (hepmc.MAX_LINE + 2)))
    with pytest.raises(DataError, match="no HepMC3"):
        hepmc.read(write("<html>404</html>"))


def test_memory_is_bounded_by_the_part(write):
    tracemalloc = pytest.importorskip("tracemalloc")
    events = "".join(SECOND.replace("E 9", f"E {k}") for k in range(2000))
    path = write(HEAD + events + END, zipped=True)
    tracemalloc.start()
    n = sum(len(part["number"]) for part in hepmc.iterate(path, step=50))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 2000 and peak < 300_000 < len(events)
