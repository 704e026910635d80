"""Runs whose parameters are shared out over several processes, and the parts of their checkpoints.

``python tests/reliability/table.py --only=shards``.
"""

import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from reliability import processes, runs

# Keys have no bias: its gradient is rounding alone, of which Adam makes whole steps.
SHARDED = ("--config.parallel=sharded", "--config.model.use_bias=query+value+out+fc1+fc2")
MESHES = {  # the preset of the run, and its flags
    "fsdp": ("plain",),
    "data x fsdp": ("best", "--config.mesh.fsdp=2"),  # averages, validation, best checkpoints
    "fsdp x tensor": ("plain", "--config.mesh.fsdp=2", "--config.mesh.tensor=2"),
}
NEAR = 1e-5
SAID = "damaged checkpoint set aside"
DAMAGES = ("flipped", "truncated", "deleted")


def run(workdir: Path, count: int, mesh: str) -> str:
    """Run over four devices of so many processes to the end; return what was said."""
    preset, *flags = MESHES[mesh]
    group = processes.start(preset, workdir, count, 4 // count, *SHARDED, *flags)
    statuses = group.wait(processes.LONG)
    group.end()
    assert statuses == [0] * count, (statuses, [group.text(i)[-2000:] for i in range(count)])
    return group.text(0)


def numbers(workdir: Path) -> dict[str, Any]:
    """Return all numbers that a run left: its last state, its log, its scores."""
    found = runs.arrays(newest(workdir))
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for name in ("step", "loss", "accuracy", "grad_norm", "learning_rate"):
        found[name] = np.array([row[name] for row in rows if name in row], np.float64)
    report = json.loads((workdir / "report.json").read_text())["seeds"][0]
    return found | {f"test {name}": np.float64(report[name]) for name in ("accuracy", "log_loss")}


def distance(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, str]:
    """Return the largest difference, in units of an array's largest value or of 1, and where it is."""
    assert sorted(one) == sorted(other)
    assert all(one[name].shape == other[name].shape for name in one)
    return max(
        (float(np.max(np.abs(a - b), initial=0) / max(1.0, np.abs(a).max(initial=0))), name)
        for name, a in one.items()
        for b in [other[name].astype(np.float64)]
        for a in [a.astype(np.float64)]
    )


def compared(wanted: dict[str, Any], workdir: Path) -> dict[str, Any]:
    """Compare what a run left with what was wanted."""
    largest, where = distance(wanted, numbers(workdir))
    outcome = "differs" if largest > NEAR else f"within {NEAR:g}" if largest else "equal"
    return {"largest": largest, "where": where, "outcome": outcome}


def newest(workdir: Path) -> Path:
    """Return the last checkpoint of a run."""
    return sorted((workdir / "checkpoints" / "seed_0" / "last").glob("step_?????????"))[-1]


def parts(checkpoint: Path) -> dict[str, list[Path]]:
    """Return the files that each process wrote of the arrays."""
    folders = sorted((checkpoint / "state").glob("ocdbt.process_*"))
    return {folder.name: sorted(p for p in folder.rglob("*") if p.is_file()) for folder in folders}


def damage(file: Path, how: str, rand: random.Random) -> None:
    """Flip a bit of a file, cut its end off, or remove it."""
    if how == "deleted":
        file.unlink()
        return
    data = bytearray(file.read_bytes())
    if how == "truncated":
        del data[rand.randrange(len(data)) :]
    else:
        data[rand.randrange(len(data))] ^= 1 << rand.randrange(8)
    file.write_bytes(data)


def damaged(workdir: Path, rand: random.Random) -> Iterator[dict[str, str]]:
    """Damage each file of each part in each way; yield whether that was found, and named."""
    from resnorm_jax.training.checkpoint import CheckpointStore, DamagedCheckpointError

    checkpoint = newest(workdir)
    store, step = CheckpointStore(checkpoint.parent), int(checkpoint.name.removeprefix("step_"))
    for part, files in parts(checkpoint).items():
        for file in files:
            before, name = file.read_bytes(), file.relative_to(checkpoint).as_posix()
            for how in DAMAGES:
                damage(file, how, rand)
                try:
                    store.check(step)
                    found = "not found"
                except DamagedCheckpointError as error:
                    found = "found" if name in str(error) else f"other words: {error}"
                file.write_bytes(before)
                yield {"part": part, "file": name, "how": how, "outcome": found}


def goes_on(
    four: Path, workdir: Path, count: int, rand: random.Random, wanted: dict[str, Any]
) -> dict[str, Any]:
    """Go on, in fewer processes, with a run of four processes whose last checkpoint is damaged."""
    shutil.copytree(four, workdir)
    last = newest(workdir)
    part, files = rand.choice(sorted(parts(last).items()))
    damage(max(files, key=lambda file: file.stat().st_size), "flipped", rand)
    (workdir / "report.json").unlink()
    text = run(workdir, count, "fsdp").replace("\n", "")
    said = SAID in text and part in text
    found = compared(wanted, workdir)
    if found["outcome"] != "differs":
        found["outcome"] = "fell back" if said else "not found"
    return {"part": part, "processes": count, **found}


def alike(folder: Path, mesh: str) -> list[dict[str, Any]]:
    """Compare 2 and 4 processes with one, of four devices each time."""
    run(folder / f"{mesh}_1", 1, mesh)
    wanted, cases = numbers(folder / f"{mesh}_1"), []
    for count in (2, 4):
        place = folder / f"{mesh}_{count}"
        run(place, count, mesh)
        cases.append({"mesh": mesh, "processes": count, **compared(wanted, place)})
    return cases


def part_by_part(folder: Path, rand: random.Random) -> list[dict[str, Any]]:
    """Go on from a checkpoint of four processes in one and in two; damage each file of each part."""
    wanted, four = numbers(folder / "fsdp_1"), folder / "fsdp_4"
    cases = [goes_on(four, folder / f"on_{count}", count, rand, wanted) for count in (1, 2)]
    return cases + list(damaged(four, rand))


def measure(quick: bool, seed: int, each, keep: Any = lambda name, make: make()) -> dict[str, Any]:
    """Compare 1, 2 and 4 processes on four devices; then damage the parts of a checkpoint of four."""
    rand, folder = random.Random(seed), Path(tempfile.mkdtemp(prefix="resnorm-shards-"))

    def found(mesh: str) -> list[dict[str, Any]]:
        cases = alike(folder, mesh)
        return cases + part_by_part(folder, rand) if mesh == "fsdp" else cases

    cases = []
    for mesh in each(list(MESHES)[: 1 if quick else None], "shards"):
        cases += keep(mesh, lambda mesh=mesh: found(mesh))
    shutil.rmtree(folder)
    return {"outcomes": dict(Counter(case["outcome"] for case in cases)), "cases": cases}
