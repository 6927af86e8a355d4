"""Checkpoints come back bit-identical, or are refused by name."""

import json

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
    tree, metadata = checkpoint.restore(saved)
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
    with pytest.raises(DataError, match="there already"):
        checkpoint.save(saved, STATE, {})
    with pytest.raises(DataError, match="no numeric array"):
        checkpoint.save(saved.parent / "6", {"a": object()}, {})
    with pytest.raises(DataError, match="bad key"):
        checkpoint.save(saved.parent / "6", {"../a": np.ones(1)}, {})
    assert [p.name for p in saved.parent.iterdir()] == ["5"]


def test_an_interrupted_save_leaves_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "write_json", lambda *a: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError, match="28"):
        checkpoint.save(tmp_path / "1", STATE, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match=r"manifest\.json"):
        checkpoint.restore(tmp_path / "1")
