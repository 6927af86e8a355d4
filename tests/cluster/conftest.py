"""The small experiment `waves` of this folder, and a SLURM of one machine."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol")
SETTINGS = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={home}/munge.sock
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=90
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=500 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=0 MaxTime=60
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=60
"""


@pytest.fixture(scope="session")
def environment():
    """Variables under which `python -m waves` runs as a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "PYTEST_"))}
    return {**kept, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def waves(environment):
    """Start a command of the small experiment; returns its process, which ends with the test."""
    started = []

    def start(*arguments, **more):
        words = [sys.executable, "-m", "waves", *map(str, arguments)]
        process = subprocess.Popen(
            words, cwd=HERE, env={**environment, **more}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def until(condition, what, seconds=1200.0):
    """Wait for a condition and return what it gives."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {seconds:g} s")


@pytest.fixture(scope="session")
def wait_until():
    return until


@pytest.fixture(scope="session")
def slurm(tmp_path_factory, environment):
    """Call a SLURM command on a cluster of this machine; skips where there can be none."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"SLURM is not installed ({missing[0]}): apt-get install slurm-wlm munge")
    if os.geteuid():
        pytest.skip("a SLURM of one machine is started by root only")
    home = tmp_path_factory.mktemp("slurm")
    variables = {**environment, "SLURM_CONF": str(home / "slurm.conf")}

    def call(*words, ok=True):
        done = subprocess.run(words, env=variables, capture_output=True, text=True)
        assert done.returncode == 0 or not ok, f"{words}: {done.stderr}"
        return done.stdout

    call.variables = variables
    try:
        _started(home, call)
    except AssertionError as error:
        _stop(home)
        pytest.skip(f"SLURM cannot be started here: {error}")
    yield call
    _stop(home)


def _started(home, call):
    for path in (home, *home.parents[:3]):  # munge refuses folders that others may write to
        if not path.stat().st_mode & stat.S_ISVTX:  # but for those such as /tmp, which stay
            path.chmod(0o755)
    (home / "state").mkdir()
    (home / "spool").mkdir()
    (home / "munge.key").write_bytes(os.urandom(128))
    (home / "munge.key").chmod(0o400)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    host = socket.gethostname().partition(".")[0]
    (home / "slurm.conf").write_text(SETTINGS.format(home=home, host=host, ports=ports))
    options = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid",
               "log-file": "munged.log", "seed-file": "seed"}  # fmt: skip
    call("munged", "--force", *(f"--{k}={home / v}" for k, v in options.items()))
    call("slurmctld")
    call("slurmd")
    until(lambda: "idle" in call("sinfo", "-h", "-o", "%T", ok=False), "an idle node", 60)


def _stop(home):
    for name in ("slurmd", "slurmctld", "munged"):
        path = home / f"{name}.pid"
        if path.exists():
            subprocess.run(["kill", path.read_text().strip()], check=False)
