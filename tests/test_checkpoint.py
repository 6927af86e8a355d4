"""Checkpoints come back bit-identical, or are refused by name."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml import checkpoint
from physml.errors import DataError
from physml.io.manifest import write_json
from physml.train import TrainState

STATE = TrainState(
    params={"w": np.linspace(0, 1, 7), "layer": {"b": jnp.ones((2, 3), jnp.bfloat16)}},
    opt_state=({"m": np.arange(3)}, np.zeros((0, 2))),
    step=np.int64(5),
    key=np.array([0, 7], np.uint32),
)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoints" / "5"
    checkpoint.save(path, STATE, {"code": "abc"})
    return path


def test_a_state_returns_bit_identical(saved):
    path, tree, metadata = checkpoint.restore(saved)
    assert path == saved
    assert metadata == {"code": "abc"}
    pairs = [
        (tree["params"]["w"], STATE.params["w"]),
        (tree["params"]["layer"]["b"], np.asarray(STATE.params["layer"]["b"])),
        (tree["opt_state"]["0"]["m"], STATE.opt_state[0]["m"]),
        (tree["opt_state"]["1"], STATE.opt_state[1]),
        (tree["step"], STATE.step),
        (tree["key"], STATE.key),
    ]
    for found, wanted in pairs:
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert found.tobytes() == wanted.tobytes()
    assert [p.name for p in saved.parent.iterdir()] == ["5"]  # nothing left beside it


def test_every_flipped_bit_is_harmless_or_refused(saved):
    """A flip that Orbax does not see is caught by the sha256; never a wrong number."""
    random = np.random.default_rng(0)
    files = [p for p in saved.rglob("*") if p.is_file() and p.stat().st_size]
    refused = 0
    for _ in range(60):
        path = files[random.integers(len(files))]
        content = path.read_bytes()
        place = random.integers(len(content))
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            tree = checkpoint.restore(saved).tree
            assert tree["params"]["w"].tobytes() == STATE.params["w"].tobytes()
            assert tree["key"].tobytes() == STATE.key.tobytes()
        except DataError:
            refused += 1
        path.write_bytes(content)
    assert refused > 10
    checkpoint.restore(saved)


def edit(saved, change):
    """Change a manifest, and its own sha256 with it."""
    manifest = json.loads((saved / "manifest.json").read_text())
    change(manifest)
    manifest.pop("sha256")
    write_json(saved / "manifest.json", {**manifest, "sha256": checkpoint._digest(manifest)})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m.update(format=2), "format 2 is not 1"),
        (lambda m: m["arrays"]["params/w"].update(sha256="0" * 64), "sha256: params/w;"),
        (lambda m: m["arrays"].pop("key"), "sha256: key;"),
        (lambda m: m["arrays"].update(extra={"shape": [1]}), "sha256: extra;"),
        (lambda m: m["files"].popitem(), "files of the checkpoint are damaged"),
    ],
)
def test_a_manifest_that_disagrees_is_refused(saved, change, message):
    edit(saved, change)
    with pytest.raises(DataError, match=message):
        checkpoint.restore(saved)


def test_a_manifest_edited_by_hand_is_refused(saved):
    path = saved / "manifest.json"
    path.write_text(path.read_text().replace('"abc"', '"abd"'))
    with pytest.raises(DataError, match="the manifest of the checkpoint is damaged"):
        checkpoint.restore(saved)


def test_nothing_is_overwritten_and_objects_are_refused(saved):
    before = (saved / "manifest.json").stat().st_mtime_ns
    checkpoint.save(saved, STATE, {"code": "abc"})  # the same is kept
    assert (saved / "manifest.json").stat().st_mtime_ns == before
    checkpoint.save(saved, STATE._replace(step=np.int64(6)), {"code": "abc"})
    assert int(checkpoint.restore(saved.with_name("5-earlier-1")).tree["step"]) == 5
    assert int(checkpoint.restore(saved).tree["step"]) == 6
    with pytest.raises(DataError, match="no numeric array"):
        checkpoint.save(saved.parent / "6", {"a": object()}, {})
    with pytest.raises(DataError, match="bad key"):
        checkpoint.save(saved.parent / "6", {"../a": np.ones(1)}, {})
    assert sorted(p.name for p in saved.parent.iterdir()) == ["5", "5-earlier-1"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, capsys):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path / f"step-{step:08d}", {"step": np.int64(step)}, {})
    assert checkpoint.latest(tmp_path, "step").tree["step"] == 10
    assert checkpoint.latest(tmp_path, "step", newest=9).tree["step"] == 2
    assert checkpoint.latest(tmp_path, "best") is None
    assert capsys.readouterr().err == ""
    victim = next(p for p in (tmp_path / "step-00000010" / "arrays").rglob("*") if p.is_file())
    victim.write_bytes(b"x" + victim.read_bytes())
    assert checkpoint.latest(tmp_path, "step").tree["step"] == 2
    err = capsys.readouterr().err
    assert "damaged checkpoint" in err and "step-00000010" in err
    assert f"going on from {tmp_path / 'step-00000002'}" in err
    checkpoint.prune(tmp_path, "step", keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010"]
    with pytest.raises(DataError, match="step-00000010"):
        checkpoint.latest(tmp_path, "step")


@pytest.mark.parametrize(
    "other, message",
    [
        (STATE._replace(params={"w": np.zeros(7)}), "params/layer/b is bfloat16[2, 3], not absent"),
        (
            STATE._replace(params={**STATE.params, "w": np.zeros(8)}),
            "w is float64[7], not float64[8",
        ),
        (STATE._replace(step=np.int32(5)), "step is int64[], not int32[]"),
        (STATE._replace(params={**STATE.params, "v": np.zeros(1)}), "v is absent, not float64[1]"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(saved, other, message):
    with pytest.raises(DataError, match=re.escape(message)):
        checkpoint.into(other, checkpoint.restore(saved))


def test_containers_come_back_as_the_template_has_them(saved):
    found = checkpoint.into(STATE, checkpoint.restore(saved))
    assert jax.tree.structure(found) == jax.tree.structure(STATE)
    with_none = {"a": None, "b": (np.ones(2), ()), "c": [np.zeros(1)]}
    checkpoint.save(saved.parent / "7", with_none, {})
    again = checkpoint.into(with_none, checkpoint.restore(saved.parent / "7"))
    assert jax.tree.structure(again) == jax.tree.structure(with_none)


def test_an_interrupted_save_leaves_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "write_json", lambda *a: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError, match="28"):
        checkpoint.save(tmp_path / "1", STATE, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match=r"manifest\.json"):
        checkpoint.restore(tmp_path / "1")
