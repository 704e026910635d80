"""A batch file for Slurm: one task a process, which JAX finds by what `srun` sets."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from resnorm_jax.launching.statuses import FINAL

BEFORE_THE_END = 180  # seconds before the time limit at which SIGTERM comes


@dataclass(frozen=True)
class Slurm:
    """What is asked of Slurm.

    Attributes:
      arguments: of ``resnorm``, from ``train`` on.
      nodes: machines.
      tasks: processes on each. JAX gives a process the one GPU of its number on its machine, so as many
        as there are GPUs.
      gpus: of each machine; 0 for none.
      cpus: cores of each process; 0 leaves it to Slurm.
      time: limit, as Slurm reads it: ``HH:MM:SS``.
      restarts: how often the job queues itself again.
      name: of the job.
    """

    arguments: Sequence[str]
    nodes: int
    tasks: int = 1
    gpus: int = 0
    cpus: int = 0
    time: str = "24:00:00"
    restarts: int = 100
    name: str = "resnorm"

    def text(self) -> str:
        """Return the file.

        `srun` must start the tasks: `jax.distributed.initialize` reads SLURM_JOB_ID, SLURM_NTASKS,
        SLURM_PROCID, SLURM_LOCALID and SLURM_STEP_NODELIST; the last is there inside a step only.
        """
        options = [
            f"--job-name={self.name}", f"--nodes={self.nodes}", f"--ntasks-per-node={self.tasks}",
            f"--time={self.time}", f"--signal=TERM@{BEFORE_THE_END}", "--requeue",
            "--open-mode=append", "--output=%x-%j.log",
        ]  # fmt: skip
        options += [f"--gpus-per-node={self.gpus}"] * bool(self.gpus)
        options += [f"--cpus-per-task={self.cpus}"] * bool(self.cpus)
        head = "\n".join(f"#SBATCH {option}" for option in options)
        final = "|".join(map(str, sorted((0, *FINAL))))
        return _TEXT.format(
            head=head,
            command=shlex.join(["resnorm", *self.arguments]),
            final=final,
            restarts=self.restarts,
        )


_TEXT = """\
#!/bin/bash
{head}
# SIGTERM comes to the tasks, not to this script, before the time limit: the run saves, ends with status
# 143, and the job queues itself again. So it does after every status but {final}.

# Slurm may send SIGTERM to this script too (preemption): it waits for the tasks. A handler, not '':
# tasks would inherit that the signal is ignored.
trap : TERM

# A task that ends must not have the others killed, which may be writing a checkpoint: they end by
# themselves within their --peer-timeout, and what hangs is killed after --wait seconds.
srun --kill-on-bad-exit=0 --wait=150 {command}
status=$?

case "$status" in
  {final}) exit "$status" ;;
esac
if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
  echo "status $status: queued again" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""
