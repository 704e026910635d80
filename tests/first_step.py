"""Seconds from the start of a training command to its first step, new and again, and what they go to.

    python tests/first_step.py --config=configs/japanese_vowels.py:smoke

The first command finds an empty folder of compiled programs, the second what the first one kept. Both
train in directories that are removed. Linux only: the start of a process is read from /proc.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = {
    "trace": "jaxpr_trace_duration",
    "lower": "jaxpr_to_mlir_module_duration",
    "compile or load": "backend_compile_duration",
}


def age() -> float:
    """Seconds since this process began."""
    began = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(began) / os.sysconf("SC_CLK_TCK")


def train(arguments: list[str]) -> None:
    """Train as ``train.py`` does; the last line printed is the times, as JSON."""
    sys.path.insert(0, str(ROOT))
    from resnorm_jax.cli.train import main
    from resnorm_jax.training import experiment  # as the command imports it
    from resnorm_jax.training.devices import DataParallel

    told: dict[str, float] = {"imports": age()}
    import jax

    spent: Counter[str] = Counter()

    def note(event: str, seconds: float, **_: object) -> None:
        spent[event.rpartition("/")[2]] += seconds
        spent["programs"] += event.endswith(PARTS["compile or load"])

    jax.monitoring.register_event_duration_secs_listener(note)

    class Timed(DataParallel):
        def train(self, *given):
            out = super().train(*given)
            if "first step" not in told:
                jax.block_until_ready(out)
                told.update({name: spent[event] for name, event in PARTS.items()})
                told["first step"], told["of processor"] = age(), sum(os.times()[:2])
                told["programs"] = spent["programs"]
            return out

    run = experiment.run_experiment
    experiment.run_experiment = lambda *given: run(*given, parallel=Timed)
    status = main(["train.py", *arguments])
    print(json.dumps(told | {"end": age()}))
    sys.exit(status)


def measured(arguments: list[str], cache: Path, workdir: Path) -> dict[str, float]:
    """Times of one training command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, __file__, "--inside", *arguments, f"--workdir={workdir}"],
        env=environment | {"XDG_CACHE_HOME": str(cache)}, cwd=ROOT, stdout=subprocess.PIPE,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        train(sys.argv[2:])
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        runs = [measured(sys.argv[1:], cache, Path(folder) / name) for name in ("new", "again")]
    print(f"{'seconds':<18}{'new':>8}{'again':>8}")
    for name in runs[0]:
        print(f"{name:<18}" + "".join(f"{run[name]:8.2f}" for run in runs))
