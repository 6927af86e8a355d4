"""A run on a real SLURM: two processes, preempted twice, and an array; `-s` shows its log."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from physml import checkpoint

HERE = Path(__file__).parent
TWO = ("--run", "train", "--tasks-per-node", 2, "--time", "10", "--pause", 1)
FIT = ("--descent.evaluate-every", 10)


@pytest.fixture
def submit(slurm):
    """Submit by the experiment's own command; returns the job's number."""

    def submitted(*arguments):
        words = [sys.executable, "-m", "waves", "submit", "smoke", *map(str, arguments)]
        done = subprocess.run(
            words, cwd=HERE, env=slurm.variables, capture_output=True, text=True, check=True
        )
        return done.stdout.split()[-1]

    return submitted


@pytest.fixture
def job(slurm):
    """What SLURM says of a job, as a dict."""

    def about(number):
        said = slurm("scontrol", "-o", "show", "job", str(number), ok=False)
        lines = said.splitlines() or ["JobState="]  # a busy controller says nothing
        return dict(word.partition("=")[::2] for word in lines[0].split())

    return about


def released(slurm, job, number):
    """Whether a job has ended; a requeued one, which SLURM holds for two minutes, is let go."""
    found = job(number)
    if found["JobState"] == "PENDING" and found.get("Reason") == "BeginTime":
        slurm("scontrol", "update", f"job={number}", "StartTime=now", ok=False)
    return found["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


def last_step(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(True)
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def weights_sha256(folder):
    found = checkpoint.latest(folder / "checkpoints", "step")
    assert found.metadata["place"]["finished"]
    params = found.tree["params"]
    return hashlib.sha256(b"".join(params[name].tobytes() for name in sorted(params))).hexdigest()


def output(folder):
    return "".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))


@pytest.mark.slow
def test_a_run_preempted_twice_ends_with_the_bits_of_one_that_was_not(
    slurm, submit, job, wait_until, tmp_path
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    first = submit(*TWO, *FIT, "--run-dir", whole)
    wait_until(lambda: released(slurm, job, first), "the uninterrupted run")
    assert job(first)["JobState"] == "COMPLETED", output(whole)

    number = submit(*TWO, *FIT, "--run-dir", broken)
    log = broken / "metrics.jsonl"
    for restarts, step in ((1, 3), (2, 23)):
        wait_until(
            lambda step=step: log.exists() and last_step(broken) >= step, f"step {step} of the run"
        )
        urgent = slurm("sbatch", "--parsable", "-p", "high", "-n2", "-o", "/dev/null",
                       "--wrap", "true").strip()  # fmt: skip
        wait_until(lambda j=urgent: job(j)["JobState"] == "COMPLETED", "the urgent job")
        wait_until(lambda: job(number)["JobState"] == "PENDING", "the requeue")
        stopped = checkpoint.latest(broken / "checkpoints", "step")
        print(
            f"job {number}: stopped at step {last_step(broken)}, Restarts={job(number)['Restarts']}"
        )
        assert int(stopped.tree["step"]) == last_step(broken) >= step
        assert job(number)["Restarts"] == str(restarts)
        released(slurm, job, number)
    wait_until(lambda: released(slurm, job, number), "the preempted run")
    assert job(number)["JobState"] == "COMPLETED", output(broken)

    said = output(broken)
    assert said.count("stopped and saved") == 2 and said.count("going on from") == 2
    digests = [weights_sha256(folder) for folder in (whole, broken)]
    print(*(line for line in said.splitlines() if "going on" in line or "saved" in line), sep="\n")
    print(f"job {first}: sha256 of the weights {digests[0]}\njob {number}: {digests[1]}, preempted")
    assert digests[0] == digests[1]
    assert (whole / "metrics.jsonl").read_bytes() == log.read_bytes()
    processes = json.loads((broken / "environment.json").read_text())["devices"]
    assert processes == 2


@pytest.mark.slow
def test_an_array_makes_the_trials_of_a_sweep(slurm, submit, job, wait_until, tmp_path):
    home = tmp_path / "sweep"
    options = ("--sweep.over", "width=4,8", "seed=0,1", "--descent.steps", 10, "--at-once", 2)
    number = submit("--run", "sweep", *options, *FIT, "--run-dir", home)
    wait_until(lambda: not slurm("squeue", "-h", "-j", number, ok=False).strip(), "the array")
    trials = sorted(home.glob("trial-*/result.json"))
    assert len(trials) == 4, output(home)
    jobs = {json.loads((path.parent / "status.json").read_text())["job"] for path in trials}
    assert len(jobs) == 4  # each by an element of its own
    found = json.loads((home / "sweep.json").read_text())
    values = [json.loads(path.read_text())["value"] for path in trials]
    assert found["done"] == 4 and found["best"]["value"] == min(values)
    print((home / "trials.csv").read_text())


@pytest.mark.slow
def test_a_run_told_to_save_comes_back_and_a_cancelled_one_does_not(
    slurm, submit, job, wait_until, tmp_path
):
    """SIGTERM to the steps alone, as before the time limit: the script queues the job again."""
    folder = tmp_path / "run"
    number = submit("--run", "train", "--pause", 300, "--run-dir", folder)
    wait_until(lambda: (folder / "metrics.jsonl").exists() and last_step(folder), "the first steps")
    slurm("scancel", "--signal=TERM", number)
    wait_until(lambda: job(number)["JobState"] == "PENDING", "the requeue")
    assert "stopped and saved" in output(folder) and job(number)["Restarts"] == "1"
    released(slurm, job, number)
    wait_until(lambda: "going on from" in output(folder), "the second start")
    slurm("scancel", number)
    wait_until(lambda: not slurm("squeue", "-h", "-j", number, ok=False).strip(), "an empty queue")
    assert job(number)["JobState"] == "CANCELLED" and job(number)["Restarts"] == "1"
