"""The sbatch script, the site's defaults, and shares of an array job."""

import subprocess
import sys

import pytest

from physml import cluster
from physml.cluster import Job, check, script, share, site_defaults, submit, without
from physml.errors import ConfigError, TrainingError

WORDS = ["python", "-m", "experiments.nova_cvn", "train", "smoke", "--axes", "a b"]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Write a site.toml and have it used."""

    def write(text):
        path = tmp_path / "site.toml"
        path.write_text(text)
        monkeypatch.setenv("PHYSML_SITE", str(path))
        return path

    return write


def asked(text):
    """What a script asks for, as a dict."""
    lines = [line.split(" ", 1)[1] for line in text.splitlines() if line.startswith("#SBATCH")]
    return dict(line.removeprefix("--").partition("=")[::2] for line in lines)


def test_a_script_says_what_was_asked_and_is_shell(tmp_path):
    job = Job(nodes=2, gpus_per_node=4, memory="64G", account="me", setup=("module load a",))
    text = script(job, "run", WORDS, tmp_path, elements=12)
    found = asked(text)
    assert found["nodes"] == "2" and found["ntasks-per-node"] == "4"  # one process per GPU
    assert found["mem"] == "64G" and found["account"] == "me" and "partition" not in found
    assert found["array"] == "0-11" and found["signal"] == "TERM@120"
    assert found["output"] == str(tmp_path / "slurm-%A_%a.out")
    assert "requeue" in found and found["open-mode"] == "append"
    assert text.index("module load a") < text.index("srun") and "--axes 'a b' &" in text
    few = script(Job(at_once=3), "run", WORDS, tmp_path, elements=4)
    assert asked(few)["array"] == "0-3%3"
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_the_script_queues_itself_again_after_75_and_143_only(tmp_path):
    """With a srun and a scontrol that only say what they were called with."""
    for name, body in (("srun", 'exit "${@: -1}"'), ("scontrol", 'echo "$@"'), ("sleep", "")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    for code in (0, 1, 2, 75, 130, 143):
        text = script(Job(), "run", ["command", str(code)], tmp_path)
        done = subprocess.run(["bash"], input=text, env=variables, text=True, capture_output=True)
        assert done.returncode == code, done.stderr
        assert ("requeue 7" in done.stdout) is (code in (75, 143))
    again = {**variables, "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
    for count, elements, wanted in (
        ("2", 4, "requeue 5_3\n"),
        ("3", 4, ""),
        ("2", 0, "requeue 7\n"),
    ):
        text = script(Job(restarts=3), "run", ["command", "75"], tmp_path, elements)
        env = {**again, "SLURM_RESTART_COUNT": count}
        done = subprocess.run(["bash"], input=text, env=env, text=True, capture_output=True)
        assert (
            done.stdout == wanted and done.returncode == 75
        )  # never the whole array, nor for ever


def test_defaults_come_from_the_file_of_the_site(site, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert site_defaults() == Job()
    site('partition = "gpu"\nnodes = 2\nsetup = ["module load a"]\nsbatch = ["exclusive"]\n')
    found = site_defaults()
    assert (found.partition, found.nodes, found.setup) == ("gpu", 2, ("module load a",))
    assert "exclusive" in asked(script(found, "run", WORDS, tmp_path))


@pytest.mark.parametrize(
    "text, message",
    [
        ('partitoin = "gpu"', "partitoin is no option of a job; use partition"),
        ('nodes = "two"', "nodes is 'two'; give a int"),
        ("nodes = true", "nodes is True; give a int"),
        ("nodes = ", "cannot be read"),
    ],
)
def test_a_wrong_file_of_the_site_is_refused(site, text, message):
    path = site(text)
    with pytest.raises(ConfigError) as error:
        site_defaults()
    assert str(error.value).startswith(str(path)) and message in str(error.value)


@pytest.mark.parametrize(
    "job, message",
    [
        (Job(nodes=0), "--nodes: is 0"),
        (Job(gpus_per_node=4, tasks_per_node=3), "cannot be shared by 3 processes"),
        (Job(partition="a\n#SBATCH --nodes=9"), "--partition: holds more than one line"),
        (Job(time="4h"), "--time 4h: is no time for SLURM"),
        (Job(time="1:2:3:4"), "is no time for SLURM"),
    ],
)
def test_a_wrong_job_is_refused(job, message):
    with pytest.raises(ConfigError, match=message):
        check(job)


@pytest.mark.parametrize("time", ["90", "90:30", "04:00:00", "1-12", "1-12:30", "1-12:30:05"])
def test_the_times_of_sbatch_are_taken(time):
    check(Job(time=time))


def test_a_job_is_handed_over_and_a_refusal_told(tmp_path, monkeypatch, capsys):
    fake = tmp_path / "sbatch"
    fake.write_text("#!/bin/bash\necho '17;lab'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    path = tmp_path / "run" / "submit.sh"
    assert submit(Job(), "#!/bin/bash\n", path) == "17" and path.read_text() == "#!/bin/bash\n"
    assert "job 17" in capsys.readouterr().out
    fake.write_text("#!/bin/bash\necho 'invalid partition' >&2; exit 1\n")
    with pytest.raises(TrainingError, match="sbatch: invalid partition"):
        submit(Job(), "#!/bin/bash\n", path)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="sbatch: is not installed here"):
        submit(Job(), "#!/bin/bash\n", path)
    assert submit(Job(dry_run=True), "#!/bin/bash\n", path) is None


def test_any_command_becomes_a_job(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "made"
    words = ["--folder", str(folder), "--elements", "3", "--dry-run", "--"]
    cluster.main([*words, "python", "-m", "data_scripts.iron_defects", "--folder", "made"])
    text = capsys.readouterr().out
    assert asked(text)["array"] == "0-2" and asked(text)["job-name"] == "made"
    assert f"{sys.executable} -m data_scripts.iron_defects --folder made &" in text
    with pytest.raises(ConfigError, match="the command: is missing"):
        cluster.main(words)


def test_elements_of_an_array_share_all_tasks_and_each_once(monkeypatch):
    tasks = list(range(11))
    assert share(tasks) == tasks
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "5")
    found = []
    for element in ("5", "6", "7"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", element)
        found += share(tasks)
    assert sorted(found) == tasks


def test_options_of_a_job_are_taken_out_of_a_command_line():
    words = "--seed 3 --nodes=2 --setup a b --no-dry-run --mu -5 --at-once 2 --hits x".split()
    assert without(words, Job()) == ["--seed", "3", "--mu", "-5", "--hits", "x"]
