"""Manifests and strict JSON: damage is named, files are whole or absent."""

import hashlib
import json
import os

import numpy as np
import pytest

from physml.errors import DataError
from physml.io import manifest


def test_sha256_is_that_of_the_content(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    assert manifest.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_manifest_notices_every_change(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"content")
    manifest.write_manifest(tmp_path, {"a.h5": {"rows": 3}}, seed=1, versions={"numpy": "2"})
    read = manifest.read_manifest(tmp_path)
    assert read["files"]["a.h5"]["bytes"] == 7 and read["seed"] == 1
    for damage in (b"Content", b"conten", b""):
        (tmp_path / "a.h5").write_bytes(damage)
        with pytest.raises(DataError, match=r"a\.h5: sha256 differs.*git"):
            manifest.read_manifest(tmp_path)
    (tmp_path / "a.h5").unlink()
    with pytest.raises(DataError, match=r"a\.h5: is not a readable file"):
        manifest.read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "not a readable JSON"),
        ("[1]", "does not hold a JSON object"),
        ('{"a": NaN}', "NaN is not allowed"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": ' + "[" * 100_000, "not a readable JSON"),
        ('{"format": 9, "files": {}}', "has format 9, not 1"),
        ('{"format": 1}', "lists no files"),
        ('{"format": 1, "files": {"../x": {"sha256": "0"}}}', "outside its folder"),
        ('{"format": 1, "files": {"x": {}}}', "no sha256 for 'x'"),
    ],
)
def test_a_bad_manifest_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        manifest.read_manifest(tmp_path)
    assert "\n" not in str(error.value)


def test_json_is_strict_and_plain():
    value = {"b": (1, 2), "a": np.float64(0.1), "c": np.arange(2)}
    assert json.loads(manifest.dumps(value)) == {"a": 0.1, "b": [1, 2], "c": [0, 1]}
    assert manifest.dumps(value).index('"a"') < manifest.dumps(value).index('"b"')
    for bad in (float("nan"), float("inf"), np.float64("nan")):
        with pytest.raises(ValueError, match="Out of range"):
            manifest.dumps({"x": bad})
    with pytest.raises(TypeError, match="no JSON form"):
        manifest.dumps({"x": object()})


def test_a_failed_write_leaves_the_previous_file(tmp_path):
    path = tmp_path / "a.json"
    manifest.write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="Out of range"):
        manifest.write_json(path, {"x": float("nan")})
    with pytest.raises(RuntimeError, match="half way"), manifest.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert manifest.read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_pipe_and_a_folder_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "missing", "bad\0name"):
        with pytest.raises(DataError):
            manifest.sha256(f"{tmp_path}/{name}")
