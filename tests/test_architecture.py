"""The import rules that keep the parts apart, read from the syntax trees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "physml"
SOURCES = sorted(PACKAGE.rglob("*.py"))
DOMAINS = ("atoms", "calorimeter", "tracking", "neutrino")
LONGEST_FUNCTION = 80
# Library -> who may import it: a file, a file name anywhere, or a folder.
ONLY = {
    "flax": ("nets.py",),
    "jraph": ("tracking/graphs.py",),
    "ase": ("atoms/", "io/structures.py"),
    "uproot": ("io/root.py",),
    "awkward": ("io/root.py",),
    "h5py": ("io/hdf5.py",),
    "tyro": ("arguments.py",),
    "orbax": ("checkpoint.py",),
    "optuna": ("search.py",),
}


def imports(source):
    """Every module that a source imports, at any depth, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"relative.{alias.name}" for alias in node.names}
    return found


def breaches(name, source):
    """What a source under physml/, named relative to it, imports against the rules."""
    found = []
    room = name.split("/")[0]
    for module in sorted(imports(source)):
        top, *rest = module.split(".")
        if top == "relative":
            found.append("imports by relative name")
        if top == "experiments":
            found.append(f"imports {module}")
        if top == "physml" and room in DOMAINS and rest and rest[0] in DOMAINS and rest[0] != room:
            found.append(f"domain {room} imports {module}")
        if top == "jax" and room in ("io", "plots"):
            found.append(f"imports {module}")
        allowed = ONLY.get(top)
        if allowed and not any(
            name == a or name.startswith(a) or name.rpartition("/")[2] == a for a in allowed
        ):
            found.append(f"imports {module}, which only {', '.join(allowed)} may")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_keep_the_rules(path):
    name = path.relative_to(PACKAGE).as_posix()
    assert breaches(name, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "name, source",
    [
        ("tracking/tracks.py", "import physml.atoms"),
        ("calorimeter/nets.py", "from physml.neutrino import nets"),
        ("io/hdf5.py", "def f():\n    import jax.numpy as jnp"),
        ("plots/style.py", "from jax import Array"),
        ("train.py", "import flax.linen as nn"),
        ("tracking/nets.py", "import jraph"),
        ("io/root.py", "from ase import Atoms"),
        ("atoms/defects.py", "import uproot"),
        ("search.py", "import tyro"),
        ("train.py", "import orbax.checkpoint"),
        ("sweep.py", "import optuna"),
        ("run.py", "from experiments import iron_entropy"),
        ("atoms/relax.py", "from . import neighbors"),
    ],
)
def test_a_breach_is_found(name, source):
    assert breaches(name, source)


def test_allowed_imports_pass():
    assert breaches("tracking/nets.py", "import flax.linen as nn\nimport physml.matter") == []
    assert breaches("atoms/nets.py", "import ase, flax\nfrom physml.atoms import afs") == []


def test_functions_fit_on_a_screen():
    folders = [PACKAGE, ROOT / "experiments", ROOT / "data_scripts", ROOT / "benchmarks"]
    long = [
        f"{path.relative_to(ROOT)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert long == []


def loaded_by(statement):
    """Top-level modules that a fresh interpreter holds after a statement."""
    command = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{command}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {module.partition(".")[0] for module in run.stdout.split()}


def test_importing_physml_loads_nothing_heavy():
    """The import stays under 0.1 s because it loads the standard library alone."""
    added = loaded_by("import physml") - loaded_by("pass") - {"physml", "__future__"}
    assert added == set()


def test_run_plots_and_io_load_no_jax():
    statement = "import physml.run, physml.plots, physml.io.hdf5, physml.io.structures"
    assert not {"jax", "jaxlib", "flax", "orbax"} & loaded_by(statement)
