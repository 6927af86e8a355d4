"""Whole events: the same for the same key, whatever is asked beyond, and of the asked mix."""

import importlib

import numpy as np
import pytest

from physml.errors import ConfigError
from physml.neutrino.events import label
from physml.neutrino.geometry import Detector, half_width, length
from physml.neutrino.simulate import simulate

# The package gives the function the name of its module.
module = importlib.import_module("physml.neutrino.simulate")


@pytest.fixture(scope="module")
def made():
    return simulate(3, 1300)


def test_the_first_events_are_the_same_whatever_is_asked_beyond(made):
    fewer = simulate(3, 1100)
    for table, other in zip(made, fewer, strict=True):
        for name, column in table._asdict().items():
            known = getattr(other, name)
            if name == "weight":
                known = known * 1100 / 1300
            assert np.allclose(column[: len(known)], known, rtol=1e-12)
    assert not np.array_equal(simulate(4, 10)[0].energy, made[0].energy[:10])


def test_tables_fit_together(made):
    events, particles, hits = made
    assert len(events.pdg) == 1300
    for table in (particles, hits):
        assert (np.diff(table.event) >= 0).all()
        assert 0 <= table.event.min() and table.event.max() < 1300
    real = hits.particle >= 0
    assert np.array_equal(particles.event[hits.particle[real]], hits.event[real])
    assert np.mean(real) > 0.9
    beam = events.pdg != 0
    assert np.array_equal(events.mode == -1, ~beam)
    mine = beam[particles.event]
    assert np.array_equal(particles.position[mine], events.vertex[particles.event[mine]])
    inside = np.array([half_width(Detector()), half_width(Detector()), length(Detector())])
    assert (np.abs(events.vertex[beam]) <= inside).all()


def test_classes_come_mixed_as_published_and_shuffled(made):
    kind = label(made[0])
    share = np.bincount(kind, minlength=5) / 1300
    expected = np.array([1_303_340, 1_354_473, 387_969, 1_683_050, 1_872_258]) / 6_601_090
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 * 0.75 / 1300))
    early, late = (np.bincount(part, minlength=5) for part in (kind[:500], kind[500:1000]))
    assert np.abs(early - late).max() < 80


def test_weights_add_up_to_the_events_of_an_exposure(made):
    events = made[0]
    kind = label(events)
    cosmic = events.weight[kind == 4].sum()
    # 8.85e20 protons in spills of 4.9e13 and 10 microseconds, 100 kHz
    assert cosmic == pytest.approx(8.85e20 / 4.9e13 * 1e-5 * 1e5, rel=0.2)
    assert 40 < events.weight[kind == 1].sum() < 200
    twice = simulate(3, 200, exposure=28 * 8.85e20)[0].weight
    np.testing.assert_allclose(twice, 2 * events.weight[:200] * 1300 / 200, rtol=1e-12)


def test_one_class_alone_and_none(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 50)
    only = {k: simulate(1, 60, fractions=tuple(np.eye(5)[k]))[0] for k in (0, 4)}
    assert (label(only[0]) == 0).all() and (label(only[4]) == 4).all()
    assert all(len(table[0]) == 0 for table in simulate(1, 0))


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="key = -1"):
        simulate(-1, 5)
    with pytest.raises(ConfigError, match="fractions: are"):
        simulate(0, 5, fractions=(1.0, 1.0))
    with pytest.raises(ConfigError, match="exposure: is -1"):
        simulate(0, 5, exposure=-1.0)
