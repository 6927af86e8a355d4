"""Several processes of one run, started by hand with the variables that srun sets."""

import json
import random

import pytest

from physml import checkpoint, processes

FIT = ("--descent.steps", 20, "--descent.evaluate-every", 10)


def variables(rank, count, job):
    return {
        "SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count),
        "SLURM_STEP_NUM_TASKS": str(count), "SLURM_STEP_TASKS_PER_NODE": str(count),
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_CPUS_PER_TASK": "1",
    }  # fmt: skip


@pytest.fixture
def together(waves):
    """Start a command in several processes."""

    def start(count, *arguments):
        job = random.randrange(10**6)  # also chooses the port
        return [waves(*arguments, **variables(rank, count, job)) for rank in range(count)]

    return start


def ended(started):
    said = [process.communicate(timeout=600)[0] for process in started]
    return [process.returncode for process in started], said


@pytest.mark.slow
def test_two_processes_compute_the_losses_of_one_and_stop_at_the_same_step(
    together, wait_until, tmp_path
):
    """SIGTERM reaches only the one that does not write; both stop, and both go on."""
    one, two = tmp_path / "one", tmp_path / "two"
    codes, said = ended(together(1, "train", "smoke", *FIT, "--run-dir", one))
    assert codes == [0], said
    told = tmp_path / "told"
    options = ("train", "smoke", *FIT, "--tell", told, "--pause", 2, "--run-dir", two)
    started = together(2, *options)
    wait_until(lambda: told.exists() and "evaluate" in told.read_text(), "an evaluation")
    started[1].terminate()
    codes, said = ended(started)
    assert codes == [75, 75], said
    assert "stopped and saved" in said[0] and "saved" not in said[1]
    found = checkpoint.latest(two / "checkpoints", "step")
    assert not found.metadata["place"]["finished"]
    codes, said = ended(together(2, "reproduce", *options[1:]))
    assert "error" in said[0] and (two / "results.json").exists()  # one process evaluates
    assert codes == [0, 0] and f"going on from {found.path}" in said[0], said
    logs = [
        [json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()]
        for f in (one, two)
    ]
    assert [sorted(r) for r in logs[0]] == [sorted(r) for r in logs[1]]
    for ours, theirs in zip(*logs, strict=True):
        assert theirs == pytest.approx(ours, rel=2e-5)  # float32 rounding


@pytest.mark.parametrize(
    "given, count",
    [
        ({}, 1),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 1),  # a batch script
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "a"}, 1),  # a shell with a part of them
        (variables(1, 4, 7), 4),
    ],
)
def test_processes_join_only_under_srun(given, count):
    assert processes.tasks(given) == count


@pytest.mark.parametrize(
    "rank, count, visible, more, expected",
    [
        (0, 1, "0,1,2,3", {}, [0, 1, 2, 3]),
        (2, 4, "0,1,2,3", {}, [2]),
        (1, 2, "0,1,2,3", {}, [2, 3]),
        (1, 2, "3", {"SLURM_GPUS_PER_TASK": "1"}, [0]),  # SLURM has given each its own
        (1, 2, "0", {}, [0]),
        (1, 2, "", {}, None),
    ],
)
def test_processes_of_a_node_share_its_gpus(rank, count, visible, more, expected):
    given = {**variables(rank, count, 7), "CUDA_VISIBLE_DEVICES": visible, **more}
    assert processes.own_gpus(given) == expected


def test_cores_are_those_that_slurm_gives():
    assert processes.cores({**variables(0, 2, 7), "SLURM_CPUS_PER_TASK": "1"}) == 1
    assert processes.cores({}) >= 1
