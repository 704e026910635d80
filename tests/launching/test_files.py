"""Launch files: what the clusters' own validators say, and what JAX looks for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from resnorm_jax.cli import launch
from resnorm_jax.errors import UserError
from resnorm_jax.launching.jobset import GPU, TPU, JobSet
from resnorm_jax.launching.slurm import Slurm

TRAIN = ("train", "--config=digits:smoke", "--workdir=/runs/a b")
POD = {"image": "me/resnorm:1", "claim": "runs"}
JOBSETS = {
    "cpu": JobSet(TRAIN, 2, **POD),
    "gpu": JobSet(TRAIN, 4, **POD, accelerator=GPU, count=8),
    "tpu": JobSet(TRAIN, 4, **POD, accelerator=TPU, count=4, tpu="tpu-v5p-slice", topology="2x2x4"),
}
SLURMS = {"cpu": Slurm(TRAIN, 3), "gpu": Slurm(TRAIN, 2, tasks=8, gpus=8, cpus=6, restarts=7)}


@pytest.fixture(params=SLURMS)
def script(request, tmp_path) -> Path:
    path = tmp_path / "job.sh"
    path.write_text(SLURMS[request.param].text())
    return path


def test_the_shells_validators_find_nothing(script):
    subprocess.run(["bash", "-n", script], check=True)
    beside = Path(sys.executable).with_name("shellcheck")
    found = subprocess.run([beside, script], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_options_stand_before_the_first_command(script):
    """Slurm reads them no further."""
    lines = script.read_text().splitlines()
    places = [n for n, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert places == list(range(1, len(places) + 1))
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[n]) for n in places)


@pytest.mark.parametrize(
    ("status", "count", "queued"),
    [
        (0, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
        (75, 0, 1),
        (76, 6, 1),
        (143, 0, 1),
        (137, 6, 1),
        (137, 7, 0),
    ],
)
def test_a_job_queues_itself_again_where_that_helps(tmp_path, status, count, queued):
    (tmp_path / "srun").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > args\nexit {status}\n')
    (tmp_path / "scontrol").write_text('#!/bin/bash\necho "$@" >> queued\n')
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(SLURMS["gpu"].text())
    place = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    restarted = {"SLURM_RESTART_COUNT": str(count)} if count else {}
    done = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=place | restarted, check=False)
    assert done.returncode == status
    assert (tmp_path / "args").read_text().splitlines()[2:] == ["resnorm", *TRAIN]
    file = tmp_path / "queued"
    assert (file.read_text() if file.exists() else "") == "requeue 77\n" * queued


@pytest.mark.parametrize("name", JOBSETS)
def test_kubernetes_own_schema_takes_the_job(name):
    """JobSet's template is a Job; its own fields are below."""
    spec = yaml.safe_load(JOBSETS[name].text())["spec"]["replicatedJobs"][0]["template"]["spec"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}, "spec": spec}
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**job, "spec": {**spec, "wrong": 1}}, "1.30", strict=True)


@pytest.mark.parametrize("name", JOBSETS)
def test_a_jobset_has_the_fields_that_its_definition_requires(name):
    """Of jobset.x-k8s.io/v1alpha2: name and template of a job, name and action of a rule."""
    made = yaml.safe_load(JOBSETS[name].text())
    assert (made["apiVersion"], made["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert set(made["spec"]) <= {"network", "failurePolicy", "replicatedJobs"}
    (job,) = made["spec"]["replicatedJobs"]
    assert set(job) == {"name", "replicas", "template"}
    (rule,) = made["spec"]["failurePolicy"]["rules"]
    assert rule == {
        "name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"],
    }  # fmt: skip
    (policy,) = job["template"]["spec"]["podFailurePolicy"]["rules"]
    assert policy["onExitCodes"]["values"] == [1, 2]  # 0 is no failure there


def test_pods_are_told_where_they_are_but_for_tpus():
    def args(name: str) -> list[str]:
        return JOBSETS[name].job()["template"]["spec"]["containers"][0]["args"]

    assert args("tpu") == list(TRAIN)
    assert args("gpu") == [
        *TRAIN, "--coordinator=resnorm-workers-0-0.resnorm:8476", "--processes=4",
        "--process-id=$(JOB_COMPLETION_INDEX)",
    ]  # fmt: skip


def written(kind: str, *options: str, theirs=TRAIN) -> int:
    return launch.main([kind, *options, "--", *theirs])


def test_it_is_printed_or_written(tmp_path, capsys):
    assert written("slurm", "--nodes=3") == 0
    assert capsys.readouterr().out == SLURMS["cpu"].text()
    file = tmp_path / "job.yaml"
    assert written("jobset", "--processes=2", "--image=me/resnorm:1", "--claim=runs",
                   f"--output={file}") == 0  # fmt: skip
    assert file.read_text() == JOBSETS["cpu"].text()
    with pytest.raises(UserError, match="exists; name a new file"):
        written("jobset", "--processes=2", "--image=a", "--claim=runs", f"--output={file}")


PODS = ("jobset", "--processes=2", "--image=a", "--claim=runs")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["slurn"], "no kind 'slurn'; did you mean 'slurm'"),
        (["slurm", "--nodes=2"], "nothing is there; write -- train"),
        (["slurm", "--nodes=2", "--", "serve", "x"], "'serve' is no such thing; write -- train"),
        (["slurm", "--nodes=0", "--", *TRAIN], "--nodes: 0 is out of range"),
        (["slurm", "--nodes=1", "--gpus=4", "--tasks=2", "--", *TRAIN], "2 processes for 4 GPUs"),
        (["slurm", "--nodes=1", "--time=1h", "--", *TRAIN], "'1h': write HH:MM:SS"),
        (["slurm", "--nodes=1", "--name=A b", "--", *TRAIN], "give up to 42 of a-z"),
        (["local", "--processes=2", "--", "train", "--config=digits"], "--workdir: missing"),
        (["local", "--processes=2", "--", *TRAIN, "--process-id=1"], "--process-id: each process"),
        (["local", "--processes=2", "--", *TRAIN, "--config.model.widht=1"], "model.width"),
        (["local", "--processes=2", "--", *TRAIN, "--wurkdir=a"], "--wurkdir: unknown option"),
        ([*PODS, "--tpus=4", "--", *TRAIN], "give all three, or none"),
        ([*PODS, "--tpus=4", "--gpus=4", "--", *TRAIN], "a pod has one kind"),
        ([*PODS, "--mount=x", "--", *TRAIN], "no absolute path"),
        ([*PODS, "--", "train", "--config=digits", "--workdir=runs/a"], "write --workdir=/runs/a"),
    ],
)
def test_mistakes_are_one_line(argv, said):
    with pytest.raises(UserError, match=re.escape(said)) as found:
        launch.main(argv)
    assert "\n" not in str(found.value)
