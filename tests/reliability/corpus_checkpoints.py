"""Damaged checkpoints and run directories of every kind of fault."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from reliability.case import Case
from reliability.made import command, place

EVALUATE = ("resnorm", "evaluate", "{d}/run")
TRAIN = command()
DEEP = "[" * 100_000
Change = Callable[[Path], None]


def _newest(run: Path, kind: str = "last") -> Path:
    steps = sorted((run / "checkpoints" / "seed_0" / kind).iterdir())
    return steps[-1]


def _changed(change: Change, directory: Path, preset: str = "short") -> None:
    change(place(directory, preset))


def _text(name: str, content: str | bytes) -> Change:
    """Replace a file of the run, or of its newest checkpoint when the name begins with ``*``."""

    def change(run: Path) -> None:
        path = _named(run, name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def _named(run: Path, name: str) -> Path:
    return _newest(run) / name[2:] if name.startswith("*/") else run / name


def _edited(name: str, edit: Callable[[Any], Any]) -> Change:
    """Load a JSON file, edit its value in place (or return another), write it."""

    def change(run: Path) -> None:
        path = _named(run, name)
        value = json.loads(path.read_text())
        path.write_text(json.dumps(edit(value) or value))

    return change


def _half(name: str) -> Change:
    def change(run: Path) -> None:
        path = _named(run, name)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    return change


def _gone(name: str) -> Change:
    def change(run: Path) -> None:
        path = _named(run, name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def _instead(name: str, make: Callable[[Path], Any]) -> Change:
    """Put something else in the place of a file or a folder."""

    def change(run: Path) -> None:
        _gone(name)(run)
        make(_named(run, name))

    return change


def _outside(name: str) -> Change:
    """Move a file or folder out of the run, and leave a link to it."""

    def change(run: Path) -> None:
        path = _named(run, name)
        shutil.move(path, run.parent / "outside")
        path.symlink_to(run.parent / "outside")

    return change


def _biggest(change: Callable[[Path], None]) -> Change:
    """Change the largest file of the newest checkpoint's arrays."""

    def changed(run: Path) -> None:
        files = [p for p in (_newest(run) / "state").rglob("d/*") if p.is_file()]
        change(max(files, key=lambda p: p.stat().st_size))

    return changed


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nothing here")


# What stands in a file that is read as JSON: what is wrong with it, its content.
NOT_AN_OBJECT: dict[str, str | bytes] = {
    "empty": "",
    "a list": "[]",
    "null": "null",
    "a text": '"config"',
    "a number": "7",
    "an empty object": "{}",
    "nested 100,000 deep": DEEP,
    "an integer of 10,000 digits": "1" * 10_000,
    "not UTF-8": b"\xff\xfe\x00{",
    "zeros": bytes(3000),
}

CONFIG: dict[str, Change] = {
    **{what: _text("config.json", content) for what, content in NOT_AN_OBJECT.items()},
    "half a file": _half("config.json"),
    "a directory": _instead("config.json", Path.mkdir),
    "a FIFO": _instead("config.json", _fifo),
    "a dangling link": _instead("config.json", _dangling),
    "config is a list": _edited("config.json", lambda v: v.update(config=[])),
    "config is null": _edited("config.json", lambda v: v.update(config=None)),
    "config is missing": _edited("config.json", lambda v: {"data": v["data"]}),
    "model is a list": _edited("config.json", lambda v: v["config"].update(model=[])),
    "a key too many": _edited("config.json", lambda v: v["config"]["model"].update(widht=8)),
    "width is a text": _edited("config.json", lambda v: v["config"]["model"].update(width="8")),
    "width is negative": _edited("config.json", lambda v: v["config"]["model"].update(width=-8)),
    "width is NaN": _edited(
        "config.json", lambda v: v["config"]["model"].update(width=float("nan"))
    ),
    "an unknown source": _edited("config.json", lambda v: v["config"]["data"].update(source="x")),
}
# The training command has its own config; of the data only predictions read what is stored.
META: dict[str, Change] = {
    "data is a list": _edited("config.json", lambda v: v.update(data=[])),
    "data is missing": _edited("config.json", lambda v: {"config": v["config"]}),
    "data is empty": _edited("config.json", lambda v: v.update(data={})),
    "no classes": _edited("config.json", lambda v: v["data"].update(classes=[])),
    "classes are a number": _edited("config.json", lambda v: v["data"].update(classes=3)),
    "other classes": _edited("config.json", lambda v: v["data"].update(classes=["a", "b", "c"])),
    "kind is unknown": _edited("config.json", lambda v: v["data"].update(kind="sounds")),
    "max_length is a text": _edited("config.json", lambda v: v["data"].update(max_length="long")),
    "max_length is negative": _edited("config.json", lambda v: v["data"].update(max_length=-1)),
    "max_length is huge": _edited("config.json", lambda v: v["data"].update(max_length=10**15)),
}

MANIFEST: dict[str, Change] = {
    **{what: _text("*/manifest.json", content) for what, content in NOT_AN_OBJECT.items()},
    "half a file": _half("*/manifest.json"),
    "gone": _gone("*/manifest.json"),
    "a directory": _instead("*/manifest.json", Path.mkdir),
    "a FIFO": _instead("*/manifest.json", _fifo),
    "a dangling link": _instead("*/manifest.json", _dangling),
    "files are missing": _edited("*/manifest.json", lambda v: {"note": v["note"]}),
    "files are a list": _edited("*/manifest.json", lambda v: v.update(files=list(v["files"]))),
    "files are null": _edited("*/manifest.json", lambda v: v.update(files=None)),
    "a file's entry is a text": _edited(
        "*/manifest.json", lambda v: v["files"].update(dict.fromkeys(v["files"], "x"))
    ),
    "no note": _edited("*/manifest.json", lambda v: {"step": v["step"], "files": v["files"]}),
    "note is a list": _edited("*/manifest.json", lambda v: v.update(note=[])),
    "no seconds": _edited("*/manifest.json", lambda v: v.update(note={"secondt": 1.0})),
    "seconds are a text": _edited("*/manifest.json", lambda v: v.update(note={"seconds": "a"})),
    "another step": _edited("*/manifest.json", lambda v: v.update(step=1)),
    "a name that leaves the folder": _edited(
        "*/manifest.json",
        lambda v: v["files"].update({"../../x": {"bytes": 0, "sha256": "0" * 64}}),
    ),
}

CHECKPOINT: dict[str, Change] = {
    "a bit of an array flipped": _biggest(_flip),
    "an array truncated": _biggest(lambda p: p.write_bytes(p.read_bytes()[:-1])),
    "an array empty": _biggest(lambda p: p.write_bytes(b"")),
    "an array gone": _biggest(Path.unlink),
    "an array a directory": _biggest(lambda p: (p.unlink(), p.mkdir())),
    "an array a FIFO": _biggest(lambda p: (p.unlink(), os.mkfifo(p))),
    "an array a link to a copy outside": _biggest(
        lambda p: (shutil.move(p, p.parents[7] / "outside"), p.symlink_to(p.parents[7] / "outside"))
    ),
    "a file too many": _text("*/state/extra", "x"),
    "state gone": _gone("*/state"),
    "metadata of arrays empty": _text("*/state/_METADATA", ""),
    "metadata of arrays [": _text("*/state/_METADATA", DEEP),
    "metadata of the checkpoint gone": _gone("*/state/_CHECKPOINT_METADATA"),
    "commit_success.txt gone": _gone("*/state/commit_success.txt"),
    "an empty directory": lambda run: (_newest(run).parent / "step_000000009").mkdir(),
    "a file": lambda run: (_newest(run).parent / "step_000000009").write_text("x"),
    "a dangling link": lambda run: _dangling(_newest(run).parent / "step_000000009"),
    "a link that leaves the run": _outside("checkpoints/seed_0/last/step_000000002"),
}

FOLDERS: dict[str, Change] = {
    "checkpoints gone": _gone("checkpoints"),
    "checkpoints a file": _instead("checkpoints", lambda p: p.write_text("x")),
    "checkpoints a dangling link": _instead("checkpoints", _dangling),
    "checkpoints a link that leaves the run": _outside("checkpoints"),
    "the seed a file": _instead("checkpoints/seed_0", lambda p: p.write_text("x")),
    "the kind a file": _instead("checkpoints/seed_0/last", lambda p: p.write_text("x")),
    "no step": lambda run: [shutil.rmtree(p) for p in _newest(run).parent.iterdir()],
}


LOG: dict[str, tuple[Change, str]] = {
    "gone": (_gone("metrics.jsonl"), r"metrics\.jsonl"),
    "empty": (_text("metrics.jsonl", ""), r"metrics\.jsonl"),
    "a directory": (_instead("metrics.jsonl", Path.mkdir), r"metrics\.jsonl"),
    "a FIFO": (_instead("metrics.jsonl", _fifo), r"metrics\.jsonl"),
    "a row that is no JSON": (_text("metrics.jsonl", "{\n{}\n"), r"metrics\.jsonl:1"),
    "a list": (_text("metrics.jsonl", "[]\n"), r"metrics\.jsonl:1"),
    "nested 100,000 deep": (_text("metrics.jsonl", DEEP + "\n"), r"metrics\.jsonl:1"),
    "a row's step a text": (
        _text("metrics.jsonl", '{"seed": 0, "split": "train", "step": "2"}\n'),
        r"metrics\.jsonl:1",
    ),
    "a row's seed a list": (
        _text("metrics.jsonl", '{"seed": [], "split": "train", "step": 2}\n'),
        r"metrics\.jsonl:1",
    ),
    "not UTF-8": (_text("metrics.jsonl", b"\xff\xfe\n"), r"metrics\.jsonl:1"),
}

# Where a run is to be: what is made first, the --workdir, what the line says.
WORKDIRS: dict[str, tuple[Change | None, str, str]] = {
    "a file": (lambda d: (d / "a").write_text("x"), "{d}/a", r"--workdir: {d}/a"),
    "under a file": (lambda d: (d / "a").write_text("x"), "{d}/a/b/run", r"--workdir: {d}/a"),
    "a dangling link": (lambda d: _dangling(d / "a"), "{d}/a", r"--workdir: {d}/a"),
    "under a dangling link": (lambda d: _dangling(d / "a"), "{d}/a/b", r"--workdir: {d}/a"),
    "a link to itself": (lambda d: (d / "a").symlink_to(d / "a"), "{d}/a", r"--workdir: {d}/a"),
    "a name of 300 characters": (None, "{d}/" + "a" * 300, r"--workdir: .*characters\)"),
    "a path of 5,000 characters": (None, "{d}/" + "a/" * 2500, r"--workdir: .*characters\)"),
    "a NUL in it": (None, "{d}/a\0b", r"--workdir: "),
    "a lone surrogate in it": (None, "{d}/a\udc80b\ud800", r"--workdir: "),
    "empty": (None, "", r"--workdir: "),
    "a device": (None, "/dev/null", r"--workdir: /dev/null"),
    "under a device": (None, "/dev/null/run", r"--workdir: /dev/null"),
    "of the kernel": (None, "/proc/resnorm", r"--workdir: /proc/resnorm"),
    "a FIFO": (lambda d: _fifo(d / "a"), "{d}/a", r"--workdir: {d}/a"),
    "a thesis": (
        lambda d: ((d / "a").mkdir(), (d / "a" / "thesis.tex").write_text("years")),
        "{d}/a",
        r"--workdir: {d}/a holds other files",
    ),
    "an empty directory called step_9 in it": (
        lambda d: (d / "a" / "step_9").mkdir(parents=True),
        "{d}/a",
        r"--workdir: {d}/a holds other files",
    ),
}


def _workdir(name: str) -> Case:
    files, workdir, says = WORKDIRS[name]
    return Case(f"workdir/{name}", command(workdir=workdir), says, files)


def _cases(kind: str, changes: dict[str, Change], argv: tuple[str, ...], says: str) -> list[Case]:
    verb = "train" if argv[0] == "train" else argv[1]
    return [
        Case(f"{kind}/{name}/{verb}", argv, says, partial(_changed, change))
        for name, change in changes.items()
    ]


def _with_input(change: Change, directory: Path) -> None:
    (directory / "in.jsonl").write_text('{"text": "the film was dull"}\n')
    _changed(change, directory)


def _predicting(changes: dict[str, Change], says: str) -> list[Case]:
    argv = ("resnorm", "predict", "{d}/run", "{d}/in.jsonl")
    return [
        Case(f"config.json/{name}/predict", argv, says, partial(_with_input, change))
        for name, change in changes.items()
    ]


def _killed_in_first_write(directory: Path) -> None:
    (directory / "run").mkdir()
    (directory / "run" / ".config.json.123.tmp").write_text('{"config": {')


def _best_damaged(directory: Path) -> None:
    run = place(directory, "short_best")
    files = [p for p in _newest(run, "best").rglob("d/*") if p.is_file()]
    _flip(max(files, key=lambda p: p.stat().st_size))
    (run / "report.json").unlink()


def _best_gone(directory: Path) -> None:
    run = place(directory, "short_best")
    shutil.rmtree(run / "checkpoints" / "seed_0" / "best")
    (run / "report.json").unlink()


def _only_manifests_step_newer(directory: Path) -> None:
    """A copy of step 2 under the name of a later step: not a state that this run was ever in."""
    newest = _newest(place(directory))
    shutil.copytree(newest, newest.with_name("step_000000500"))


def _series(names: str, rows: str = "1,2:{0}\n2,3:{1}\n") -> str:
    classes = names.split()
    body = "".join(rows.format(*classes[:2]) for _ in range(4))
    return f"@problemName x\n@univariate true\n@classLabel true {names}\n@data\n{body}"


SERIES = ("train", "--config={configs}/series.py:train={d}/a.ts,data.test={d}/a.ts")


def _other_data(before: str, after: str, directory: Path) -> None:
    """Train on some rows, then put others in the place of their file."""
    from reliability.run_cases import call
    from reliability.run_cases import command as completed

    (directory / "a.ts").write_text(before)
    status, out, err = call(completed(Case("", SERIES, ""), directory))
    assert status == 0, out + err
    (directory / "a.ts").write_text(after)


OTHER_DATA = {  # a class that is declared and has no row changes nothing
    "classes in another order": (_series("A B"), _series("B A")),
    "a class more": (_series("A B"), _series("A B C") + "9,9:C\n"),
    "a class called otherwise": (_series("A B"), _series("A C")),
    "a value changed": (_series("A B"), _series("A B").replace("1,2", "1,3", 1)),
    "labels exchanged": (_series("A B"), _series("A B", "1,2:{1}\n2,3:{0}\n")),
    "rows in another order": (_series("A B"), _series("A B", "2,3:{1}\n1,2:{0}\n")),
    "a row more": (_series("A B"), _series("A B") + "9,9:A\n"),
    "a series longer": (_series("A B"), _series("A B") + "9,9,9:A\n"),
}

CASES = [
    *_cases("config.json", CONFIG, TRAIN, r"config\.json|holds (another run|other files)"),
    *_cases("config.json", CONFIG, EVALUATE, r"config\.json"),
    *_predicting(META, r"config\.json"),
    *_cases("manifest", MANIFEST, EVALUATE, r"damaged checkpoint: .*step_000000002"),
    *_cases("checkpoint", CHECKPOINT, EVALUATE, r"checkpoint.*step_00000000"),
    *_cases("folder", FOLDERS, EVALUATE, r"checkpoint"),
    *(
        Case(f"log/{name}/train", TRAIN, says, partial(_changed, change))
        for name, (change, says) in LOG.items()
    ),
    *map(_workdir, WORKDIRS),
    *(
        Case(f"other data/{name}", SERIES, r"data.*(differ|not those|are not|changed)", partial(
            _other_data, *texts
        ))
        for name, texts in OTHER_DATA.items()
    ),
    Case("best/damaged, no report", command("short_best"), r"best", _best_damaged),
    Case("best/gone, no report", command("short_best"), r"best", _best_gone),
    Case(
        "best/damaged, evaluated",
        EVALUATE,
        r"damaged checkpoint: .*best",
        _best_damaged,
    ),
    Case(
        "checkpoint/of a step that is past the end",
        EVALUATE,
        r"step_000000500",
        _only_manifests_step_newer,
    ),
    Case("run/killed in the first write of config.json", TRAIN, "report", _killed_in_first_write,
         status=0),
    Case("evaluate/no such folder", ("resnorm", "evaluate", "{d}/none"), r"{d}/none"),
    Case("evaluate/an empty folder", ("resnorm", "evaluate", "{d}"), r"{d}.*config\.json"),
    Case("evaluate/a device", ("resnorm", "evaluate", "/dev/null"), r"/dev/null"),
    Case("evaluate/a name of 300 characters", ("resnorm", "evaluate", "a" * 300), r"aaa"),
    Case("evaluate/a NUL in the name", ("resnorm", "evaluate", "a\0b"), r"not a run directory|name"),
    Case("evaluate/a seed that is not there", (*EVALUATE, "--seed=7"), r"seed.*7",
         partial(_changed, lambda run: None)),
    Case("evaluate/a negative seed", (*EVALUATE, "--seed=-1"), r"seed.*-1",
         partial(_changed, lambda run: None)),
    Case("evaluate/a best checkpoint of select=last", (*EVALUATE, "--checkpoint=best"), r"best",
         partial(_changed, lambda run: None)),
]  # fmt: skip
