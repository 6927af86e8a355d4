"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # tests compile what they test


@pytest.fixture(scope="session")
def shared_data():
    """Folder with public data sets that are not part of the project."""
    folder = os.environ.get("PHYSML_SHARED_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PHYSML_SHARED_DATA names no folder of public data")
    return Path(folder)


@pytest.fixture
def quick_compilation():
    """Compile with less effort: for networks so small that compiling takes longer than running."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
