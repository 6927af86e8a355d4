"""The fit of spectra: known numbers come back, a TrackML table gives the defaults; refusals."""

import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest

from data_scripts import pileup_spectrum
from data_scripts.pileup_spectrum import Sample, Task, fit, make_block, plan, read_trackml
from physml.errors import ConfigError, DataError
from physml.io import hdf5
from physml.tracking import spectrum
from physml.tracking.spectrum import DEFAULT, LOWEST, WIDEST

HEADER = "particle_id,vx,vy,vz,px,py,pz,q,nhits\n"


@pytest.mark.parametrize("kind", [DEFAULT.pile_up, DEFAULT.hard])
def test_the_fit_finds_the_numbers_again(kind):
    """Of 60,000 particles; T, n and m are tied to each other: what they give together counts."""
    rng = np.random.default_rng(0)
    count = spectrum.multiplicities(rng, kind, 4000, LOWEST, WIDEST)
    n = 60_000
    pt = spectrum.transverse_momenta(rng, kind, n, LOWEST)
    eta = np.abs(spectrum.pseudorapidities(rng, kind, n, WIDEST))
    found = fit(Sample(count, pt, eta, np.zeros(n, np.int64)))
    assert found.multiplicity == pytest.approx(kind.multiplicity, rel=0.05)
    assert found.shape == pytest.approx(kind.shape, rel=0.1)
    assert found.silent == pytest.approx(kind.silent, abs=0.03)
    assert found.plateau == pytest.approx(kind.plateau, rel=0.1)
    assert found.power == pytest.approx(kind.power, rel=0.05)
    points = np.array([LOWEST, 0.5, 1.0, 3.0])
    shares = [spectrum.survival(k, points)[1:] / spectrum.survival(k, points)[0]
              for k in (found, kind)]  # fmt: skip
    np.testing.assert_allclose(shares[0], shares[1], rtol=0.03)


def test_a_trackml_table_gives_the_defaults(shared_data):
    folder = shared_data / "tracking" / "trackml_event1000_particles"
    samples = read_trackml(folder / "event000001000-particles.csv.gz")
    assert {name: len(s.pt) for name, s in samples.items()} == {"pile_up": 7751, "hard": 236}
    for name, sample in samples.items():
        np.testing.assert_allclose(fit(sample), getattr(DEFAULT, name), rtol=2e-3)


class Fake:
    """Pythia that fires one pion, one soft kaon, one photon and one forward proton."""

    def __init__(self, *_):
        self.settings, self.event = [], []

    def readString(self, text):  # noqa: N802
        self.settings.append(text)

    def init(self):
        return "Top:gg2ttbar = on" in self.settings and "Random:seed = 5" in self.settings

    def next(self):
        def one(code, pt, eta, charged=True):
            given = {"isFinal": True, "isCharged": charged, "pT": pt, "eta": eta, "id": code}
            return SimpleNamespace(**{k: (lambda v=v: v) for k, v in given.items()})

        self.event = [one(-211, 0.7, -1.5), one(321, 0.1, 0.2), one(22, 5.0, 0.0, False),
                      one(2212, 1.0, 4.5)]  # fmt: skip
        return True


def test_blocks_hold_what_the_detector_may_see(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pythia8mc", SimpleNamespace(Pythia=Fake))
    monkeypatch.setitem(pileup_spectrum.BLOCK, "hard", 3)
    path = make_block(Task("hard", 5, tmp_path / "hard.h5"))
    block = hdf5.read(path)
    assert block["count"].tolist() == [1, 1, 1] and block["pdg"].tolist() == [211] * 3
    assert block["pt"].tolist() == [0.7] * 3 and block["eta"].tolist() == [1.5] * 3
    before = path.stat().st_mtime_ns
    assert make_block(Task("hard", 6, path)).stat().st_mtime_ns == before
    with pytest.raises(DataError, match="refuses its settings"):
        make_block(Task("hard", 6, tmp_path / "other.h5"))
    assert not (tmp_path / "other.h5").exists()


def test_a_folder_keeps_its_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(pileup_spectrum, "version", lambda name: "8.318")
    tasks = plan(tmp_path, 7, 2)
    assert [task.seed for task in tasks] == [7, 8, 7, 8]
    assert len({task.path for task in tasks}) == 4
    assert plan(tmp_path, 7, 3)[:2] == tasks[:2]
    with pytest.raises(ConfigError, match="use another folder"):
        plan(tmp_path, 8, 2)


def command(monkeypatch, capsys, *options):
    monkeypatch.setattr(sys, "argv", ["pileup_spectrum", *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        pileup_spectrum.main()
    return stop.value.code, capsys.readouterr().err


def test_refusals_take_one_line(tmp_path, monkeypatch, capsys):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pileup_spectrum, "version", missing)
    table = tmp_path / "particles.csv"
    table.write_text("particle_id,vx\n1,2\n")
    few = tmp_path / "few.csv"
    few.write_text(HEADER + f"{1 << 52},0,0,0,1,1,1,1,9\n")
    folder = tmp_path / "new"
    for options, complaint in (
        ((), "pythia8mc: is not installed"),
        (("--blocks", 0), "--blocks: is 0; give 1 to 9999"),
        (("--trackml", table), "is no particle table"),
        (("--trackml", tmp_path / "none.csv"), "is no particle table"),
        (("--trackml", few), "to fit"),
    ):
        code, printed = command(monkeypatch, capsys, "--folder", folder, *options)
        assert code == 2 and complaint in printed and printed.count("\n") == 1, printed
        assert not folder.exists()
