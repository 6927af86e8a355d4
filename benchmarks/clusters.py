"""How fast runs stop, and what a second process costs; on CPU, without SLURM.

    python benchmarks/clusters.py                         both of these
    python benchmarks/clusters.py stop [EXPERIMENT...]    SIGTERM to saved and exited, smoke presets
    python benchmarks/clusters.py processes               2 processes beside 1 with as many threads

The log of preemptions on a real SLURM: pytest tests/cluster/test_slurm.py -s
A sweep by three workers of which one is killed: pytest tests/cluster/test_sweep.py -s -k killed
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
ROUNDS = 3
NETWORKS = (("sparse", "64", "30"), ("googlenet", "64", "2"))  # of smoke and paper; rows; steps
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process: int) -> float:
    """CPU time that a living process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def stop(name: str) -> None:
    """Start the fit of a smoke preset, send SIGTERM after its first steps, and time the end."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", f"experiments.{name}", "reproduce", "smoke", "--run-dir"]
        process = subprocess.Popen([*words, folder], cwd=ROOT, stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)  # fmt: skip
        log = Path(folder) / "metrics.jsonl"
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.02)
        used, start = cpu_seconds(process.pid), time.perf_counter()
        process.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(process.pid, 0)
        wall, cpu = time.perf_counter() - start, usage.ru_utime + usage.ru_stime - used
        code = os.waitstatus_to_exitcode(status)
        saved = sorted(p.name for p in (Path(folder) / "checkpoints").glob("step-*"))
    print(f"{name:14s} exit code {code}, {wall:5.1f} s ({cpu:4.1f} s of CPU), {saved[-1:]}")


def steps(network: str, rows: int, count: int) -> None:
    """In one of the processes: time steps of a network of nova_cvn."""
    from experiments.nova_cvn.experiment import EXPERIMENT
    from physml import processes
    from physml.train import fit

    processes.start(True)
    config = EXPERIMENT.presets["smoke"]
    descent = replace(config.descent, steps=3 * count, evaluate_every=count, batch_size=rows)
    config = replace(config, events=400, validation=50, test=100, network=network, descent=descent)
    times: list[tuple[float, float]] = []

    def evaluate(_state: object, _split: object) -> dict[str, float]:
        times.append((time.perf_counter(), time.process_time()))
        return {"loss": 0.0}

    made = EXPERIMENT.objective(config)._replace(evaluate=evaluate)
    fit(made, EXPERIMENT.load(config), 0)
    each = [(b - a) / (2 * count) for a, b in zip(times[0], times[-1], strict=True)]
    print(json.dumps(each))
    processes.leave()


def batch(processes: int, words: tuple[str, ...]) -> tuple[float, float]:
    """Seconds and CPU seconds per global batch on two threads, in one or two processes."""
    job = str(random.randrange(10**6))
    started = []
    for rank in range(processes):
        variables = {
            "SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(processes),
            "SLURM_STEP_NUM_TASKS": str(processes), "SLURM_STEP_TASKS_PER_NODE": str(processes),
            "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_CPUS_PER_TASK": "1",
            "JAX_NUM_CPU_DEVICES": str(2 // processes), "PYTHONPATH": str(ROOT), **THREADS,
        }  # fmt: skip
        command = [sys.executable, __file__, "steps", *words]
        env = {**os.environ, **variables}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        started.append(subprocess.Popen(command, env=env, **pipes))
    said = [process.communicate()[0] for process in started]
    found = [json.loads(text.splitlines()[-1]) for text in said]
    return max(wall for wall, _ in found), sum(cpu for _, cpu in found)


def processes() -> None:
    """Both layouts in turn; medians and their ratio."""
    for words in NETWORKS:
        rounds = [(batch(1, words), batch(2, words)) for _ in range(ROUNDS)]
        for k, what in enumerate(("wall", "CPU")):
            one, two = (1e3 * statistics.median(r[n][k] for r in rounds) for n in (0, 1))
            ratio = statistics.median(r[1][k] / r[0][k] for r in rounds)
            print(
                f"{words[0]}, {words[1]} rows, {what}: {one:.1f} ms per batch in 1 process, "
                f"{two:.1f} in 2: x{ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    command, *names = sys.argv[1:] or ["both"]
    if command == "steps":
        steps(names[0], int(names[1]), int(names[2]))
    elif command not in ("both", "stop", "processes"):
        sys.exit(__doc__)
    if command in ("both", "stop"):
        for each in names or ("iron_entropy", "nova_cvn", "track_edges", "calo_gan"):
            stop(each)
    if command in ("both", "processes"):
        processes()
