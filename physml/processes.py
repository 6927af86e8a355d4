"""Several processes of one run: started by srun, one of them writes, all stop at the same step.

Without srun there is one process, and nothing here does anything. Every process loads the same
data, holds the same state and computes its share of each batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from physml.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np


def tasks(variables: Mapping[str, str] = os.environ) -> int:
    """Processes of this SLURM step; 1 outside of srun.

    Other SLURM variables are no sign of srun: a batch script, and a shell on a node, have them too.
    """
    inside = "SLURM_PROCID" in variables and "SLURM_STEP_NODELIST" in variables
    return int(variables.get("SLURM_STEP_NUM_TASKS", 1)) if inside else 1


def cores(variables: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    own = variables.get("SLURM_CPUS_PER_TASK") if tasks(variables) > 1 else None
    return min(free or 1, int(own)) if own else free or 1


def own_gpus(variables: Mapping[str, str] = os.environ) -> list[int] | None:
    """Numbers, among the visible GPUs of the node, of those that this process takes.

    Processes of a node share its GPUs evenly; all that are visible, where SLURM has given each
    process its own or they cannot be shared evenly. None: there are none.
    """
    visible = [gpu for gpu in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    beside = int(variables.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0].split(",")[0])
    bound = "SLURM_GPUS_PER_TASK" in variables
    if not visible:
        return None
    if bound or len(visible) % beside:
        return list(range(len(visible)))  # None would make JAX take the one of SLURM_LOCALID
    each = len(visible) // beside
    first = int(variables["SLURM_LOCALID"]) * each
    return list(range(first, first + each))


def start(compiled: bool) -> None:
    """Set up compiler and devices, and join the processes of this step; before any array is made.

    Args:
        compiled: whether the fit is compiled; then its batches are shared by all cores.

    Raises:
        ConfigError: several processes for host code, which would all do the same.
    """
    _cache_compilations()
    if compiled:
        _use_all_cores()
    if tasks() > 1:
        if not compiled:
            what = f"cannot be shared by {tasks()} processes"
            raise ConfigError("this fit", what, "start one: srun --ntasks=1")
        import jax

        # Its preemption service would take SIGTERM away from us; `train.fit` agrees by itself.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(local_device_ids=own_gpus(), cluster_detection_method="slurm")
        # Connects all devices now, while the processes are abreast: Gloo waits for 30 s only.
        gather(0.0)


def _cache_compilations() -> None:
    """Keep compiled code between runs, where the user has not said otherwise."""
    import jax

    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if jax.config.values["jax_compilation_cache_dir"] is None and not home.startswith("~"):
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "physml", "jax"))


def _use_all_cores() -> None:
    """On CPU, one device per core that we may use, up to 8: batches are then shared among them.

    One device with as many threads takes 1.6 times as long on two cores (sparse network, 64 rows).
    """
    import jax

    if jax.config.values["jax_num_cpu_devices"] == -1:
        with contextlib.suppress(RuntimeError):  # devices are in use already: leave them
            jax.config.update("jax_num_cpu_devices", min(cores(), 8))


def leave() -> None:
    """Wait for the other processes and part: what follows, each does alone."""
    if tasks() > 1:
        import jax

        jax.distributed.shutdown()


def writes() -> bool:
    """Whether this process is the one that writes files and answers."""
    return tasks() == 1 or int(os.environ["SLURM_PROCID"]) == 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What a process prints that does not write goes nowhere."""
    if writes():
        yield
        return
    with open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield


def gather(value: float) -> np.ndarray:
    """The value that each process gives, (processes,) float64; waits for all of them."""
    import numpy as np

    if tasks() == 1:
        return np.array([value], np.float64)
    import jax

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
    spread, everywhere = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (("rows",), ())
    )
    halves = np.array([[value]], np.float64).view(np.uint32)  # float64 would be cast to float32
    own = jax.make_array_from_callback((mesh.size, 2), spread, lambda _: halves)
    found = np.asarray(jax.jit(lambda rows: rows, out_shardings=everywhere)(own))
    first = {device.process_index: row for row, device in enumerate(jax.devices())}
    return np.ascontiguousarray(found[sorted(first.values())]).view(np.float64)[:, 0]
