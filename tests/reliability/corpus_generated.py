"""Malformed inputs by a generator with a fixed seed: fields, names, data files, files of a run.

Every mutation makes its input certainly wrong, so that no case may be accepted.
"""

import io
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from reliability.case import Case
from reliability.made import place
from reliability.runs import HERE

from resnorm_jax.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from resnorm_jax.data.sample_text import SampleTextOptions
from resnorm_jax.schema import kinds

SEED = 12
TINY = f"--config={HERE / 'config_tiny.py'}"
# Texts that no field of the type may take.
WRONG: dict[type, tuple[str, ...]] = {
    int: ("abc", "", "1.5", "-1", "9" * 400, "nan", "1,000", "[1]"),
    float: ("abc", "", "nan", "inf", "-inf", "1e400", "-1e300", "1,5"),
    bool: ("yes", "", "2", "truee"),
    str: ("no_such_name", "", "a\nb", "\u00e9t\u00e9", "x" * 300),
}
VALUES_A_FIELD = 4


def _fields() -> list[tuple[str, type]]:
    sections = {"": Config, "model.": ModelConfig, "optimizer.": OptimizerConfig}
    sections |= {"train.": TrainConfig, "data.": SampleTextOptions}
    return [
        (prefix + name, kind)
        for prefix, section in sections.items()
        for name, (kind, _) in kinds(section).items()
        if kind in WRONG
    ]


def _values(rand: random.Random) -> Iterator[Case]:
    for path, kind in _fields():
        for text in rand.sample(WRONG[kind], min(VALUES_A_FIELD, len(WRONG[kind]))):
            leaf = path.split(".")[-1]
            shown = text if len(text) < 20 else f"{text[:3]} of {len(text)} characters"
            argv = ("train", TINY, f"--config.{path}={text}")
            yield Case(f"generated/{path}={shown!r}", argv, rf"\b{leaf}\b")


def _misspelt(rand: random.Random, name: str) -> str:
    at = rand.randrange(len(name) - 1)
    return rand.choice(
        [
            name[:at] + name[at + 1 :],
            name[:at] + name[at] + name[at:],
            name[:at] + "q" + name[at + 1 :],
        ]
    )


def _names(rand: random.Random) -> Iterator[Case]:
    paths = {path for path, _ in _fields()}
    for path in rand.sample(sorted(paths), 40):
        section, _, leaf = path.rpartition(".")
        wrong = f"{section}.{_misspelt(rand, leaf)}".lstrip(".")
        if wrong not in paths:
            argv = ("train", TINY, f"--config.{wrong}=1")
            yield Case(f"generated/name {wrong}", argv, rf"config\.{wrong}: unknown field; \w+")
    for name in ("train", "list", "show", "evaluate", "predict", "lab", "bench"):
        wrong = _misspelt(rand, name)
        yield Case(f"generated/command {wrong}", ("resnorm", wrong), rf"{wrong}.*(did you|choose)")


# Data files: a valid one, and what spoils one of its lines.
ROWS = 8
LINES = {
    "jsonl": [json.dumps({"text": f"a film {i}", "label": "ab"[i % 2]}) for i in range(ROWS)],
    "csv": ["text,label", *(f'"a film, {i}",{"ab"[i % 2]}' for i in range(ROWS))],
    "ts": [
        "@problemName x",
        "@univariate false",
        "@dimensions 2",
        "@equalLength true",
        "@seriesLength 3",
        "@classLabel true a b",
        "@data",
        *(f"{i},2,3:4,5,{i}:{'ab'[i % 2]}" for i in range(ROWS)),
    ],
}
FIRST_ROW = {"jsonl": 0, "csv": 1, "ts": 7}
CONFIG = {"jsonl": "text.py", "csv": "text.py", "ts": "series.py"}


def _without(rand: random.Random, line: str, characters: str) -> str:
    """The line without one of its characters of a kind."""
    at = rand.choice([i for i, c in enumerate(line) if c in characters])
    return line[:at] + line[at + 1 :]


def _with_label(value: object) -> Callable[[random.Random, str], str]:
    return lambda rand, line: json.dumps({**json.loads(line), "label": value})


SPOILS: dict[str, dict[str, Callable[[random.Random, str], str]]] = {
    "jsonl": {
        "a sign missing": lambda rand, line: _without(rand, line, '{}":,'),
        "cut": lambda rand, line: line[: rand.randrange(1, len(line))],
        "twice on a line": lambda rand, line: line + line,
        "a comma at the end": lambda rand, line: line[:-1] + ",}",
        "a control character": lambda rand, line: line.replace("film", "fi\x01lm"),
        "label a list": _with_label(["a"]),
        "label an object": _with_label({}),
        "label null": _with_label(None),
        "label a fraction": _with_label(1.5),
        "label empty": _with_label(""),
        "text a number": lambda rand, line: json.dumps({**json.loads(line), "text": 3}),
        "text empty": lambda rand, line: json.dumps({**json.loads(line), "text": "  "}),
        "no label": lambda rand, line: json.dumps({"text": "x"}),
        "a list": lambda rand, line: "[1, 2]",
    },
    "csv": {
        "a field too many": lambda rand, line: line + ",x",
        "a field too few": lambda rand, line: line.rpartition(",")[0],
        "an open quote": lambda rand, line: line.replace('"', "", 1).replace('"', '"x', 1) + '"',
        "text after a quote": lambda rand, line: line.replace('",', '"x,'),
        "no label": lambda rand, line: line[:-1],
        "no text": lambda rand, line: '"",a',
    },
    "ts": {
        "a word for a number": lambda rand, line: line.replace(
            "2", rand.choice(["x", "2;", "--2"])
        ),
        "a missing value": lambda rand, line: line.replace("2", rand.choice(["?", "NaN", ""])),
        "infinite": lambda rand, line: line.replace("2", rand.choice(["inf", "1e400", "-1e39"])),
        "a label not declared": lambda rand, line: line[:-1] + "c",
        "a label of another case": lambda rand, line: line[:-1] + line[-1].upper(),
        "no label": lambda rand, line: line[:-2],
        "a value too many": lambda rand, line: line.replace(",2,", ",2,2,"),
        "a value too few in all channels": lambda rand, line: "1,2:4,5:a",
        "a channel too few": lambda rand, line: line.replace(",3:4", ",3,4"),
        "a channel too many": lambda rand, line: "1,2,3:" + line,
    },
}


def _write_spoilt(suffix: str, lines: list[str], directory: Path) -> None:
    (directory / f"a.{suffix}").write_text("\n".join(lines) + "\n")


def _lines(rand: random.Random) -> Iterator[Case]:
    for suffix, spoils in SPOILS.items():
        for what, spoil in spoils.items():
            for again in range(3):
                number = rand.randrange(FIRST_ROW[suffix] + 1, len(LINES[suffix]))
                lines = list(LINES[suffix])
                lines[number] = spoil(rand, lines[number])
                argv = ("train", f"--config={{configs}}/{CONFIG[suffix]}:train={{d}}/a.{suffix}")
                argv = (*argv[:1], argv[1] + f",data.test={{d}}/a.{suffix}")
                yield Case(
                    f"generated/{suffix} {what} {again}",
                    argv,
                    rf"a\.{suffix}:{number + 1}\b",
                    partial(_write_spoilt, suffix, lines),
                )


def _arrays(compressed: bool) -> bytes:
    rand = np.random.default_rng(SEED)
    file = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(file, x=rand.normal(size=(16, 5, 2)).astype(np.float32), y=np.arange(16) % 2)
    return file.getvalue()


def _write_bytes(name: str, data: bytes, directory: Path) -> None:
    (directory / name).write_bytes(data)


NPZ = ("train", "--config={configs}/arrays.py:train={d}/a.npz,data.test={d}/a.npz")


def _archives(rand: random.Random) -> Iterator[Case]:
    for compressed in (False, True):
        kind, whole = "deflated" if compressed else "stored", _arrays(compressed)
        for _ in range(6):
            at = rand.randrange(1, len(whole))
            files = partial(_write_bytes, "a.npz", whole[:at])
            yield Case(f"generated/npz {kind}, cut at {at}", NPZ, r"a\.npz", files)
        for _ in range(10):  # within x, whose sum the archive keeps
            at = rand.randrange(100, 400)
            data = whole[:at] + bytes([whole[at] ^ 1 << rand.randrange(8)]) + whole[at + 1 :]
            files = partial(_write_bytes, "a.npz", data)
            yield Case(f"generated/npz {kind}, byte {at} changed", NPZ, r"a\.npz", files)


def _spoil_file(name: str, at: float, cut: bool, directory: Path) -> None:
    """Cut a file of a run, or change one of its bytes, at a share of its length."""
    run = place(directory)
    path = next(iter(sorted(run.glob(name))))
    data = bytearray(path.read_bytes())
    place_ = int(at * len(data))
    data[place_] ^= 0x10
    path.write_bytes(data[:place_] if cut else data)


RUN_FILES = {
    "config.json": r"config\.json",
    "checkpoints/seed_0/last/step_000000002/manifest.json": r"damaged checkpoint",
    "checkpoints/seed_0/last/step_000000002/state/_METADATA": r"damaged checkpoint",
    "checkpoints/seed_0/last/step_000000002/state/manifest.ocdbt": r"damaged checkpoint",
    "checkpoints/seed_0/last/step_000000002/state/d/*": r"damaged checkpoint",
    "checkpoints/seed_0/last/step_000000002/state/ocdbt.process_0/d/*": r"damaged checkpoint",
}


def _run_files(rand: random.Random) -> Iterator[Case]:
    for name, says in RUN_FILES.items():
        for again in range(8):
            at, cut = rand.random() * 0.98, bool(again % 2)
            what = "cut" if cut else "changed"
            yield Case(
                f"generated/{name} {what} at {at:.3f}",
                ("resnorm", "evaluate", "{d}/run"),
                says,
                partial(_spoil_file, name, at, cut),
            )


def _generated() -> Iterator[Case]:
    rand = random.Random(SEED)
    for part in (_values, _names, _lines, _archives, _run_files):
        yield from part(rand)


CASES = list(_generated())
