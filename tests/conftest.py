"""Fixtures that every test may use."""

import os
import tempfile
from pathlib import Path

import pytest

# Tests compile what they test: nothing comes from, or goes to, the user's cache.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")


@pytest.fixture(scope="session", autouse=True)
def compiled_once():
    """Keep compiled code until the end: the same program comes from many a fresh `jit`."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    with tempfile.TemporaryDirectory(prefix="physml-compiled-") as folder:
        jax.config.update("jax_enable_compilation_cache", True)
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
        compilation_cache.reset_cache()  # asked anew, should an import have compiled already
        yield
        jax.config.update("jax_enable_compilation_cache", False)


@pytest.fixture(scope="session")
def shared_data():
    """Folder with public data sets that are not part of the project."""
    folder = os.environ.get("PHYSML_SHARED_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PHYSML_SHARED_DATA names no folder of public data")
    return Path(folder)


@pytest.fixture(scope="module")
def quick_compilation():
    """Compile with less effort to the end of the file: for what compiles longer than it runs."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
