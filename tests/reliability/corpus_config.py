"""Wrong fields, settings, config files and command lines."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from reliability.case import Case

DIGITS = "--config={configs}/digits.py"

# --- Fields: path to values, all of them out of range or no number ---

NO_NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "ten",
    "1_000",
    " 5 ",
    "0x10",
    "１",
    "True",
    "1e400",
    "9" * 5000,
)
SHARES = ("-0.1", "1", "2", "nan", "-1e-60", "0.99999999999")
FIELDS = {
    "model.width": (*NO_NUMBERS, "0", "-8", "64.0", "1e3", 10**20, 2 * 10**6, 10**6),
    "model.depth": ("0", "-3", 10**9, 10**4 + 1, "1.5", "two"),
    "model.heads": ("0", "-2", 10**6, "3"),
    "model.mlp_width": ("0", "-1", 10**9, "8.0"),
    "model.norm_epsilon": ("-1", "-1e-6", "nan", "inf", "1e39", "1e-60", "1e-45", "small"),
    "model.dropout": (*SHARES, "1_0", "half"),
    "model.attention_dropout": SHARES,
    "model.drop_path": SHARES,
    "model.max_length": ("0", "-1", 10**9, "4"),
    "model.patch": ("0", "-2", 10**6, "4"),
    "model.kernel": ("0", "-1", 10**7, "16"),
    "model.stride": (*NO_NUMBERS, "0", "-1", 10**7, "2.0"),
    "model.unroll": ("0", 10**9),
    "model.remat_every": ("0", 10**9, "3"),
    "optimizer.learning_rate": (
        *(
            "inf",
            "-inf",
            "nan",
            "1e39",
            "1e-60",
            "0",
            "-1",
            "1e31",
            "1e400",
            "1_0",
            "0x1p3",
            "fast",
        ),
        "1e-45",
        "１",
    ),
    "optimizer.warmup": SHARES,
    "optimizer.weight_decay": ("-1", "nan", "inf", "1e30", "1e-50"),
    "optimizer.b1": SHARES,
    "optimizer.b2": SHARES,
    "optimizer.epsilon": ("-1", "-1e-8", "nan", "inf", "1e39", "1e-60"),
    "optimizer.momentum": ("-0.1", "1", "nan"),
    "optimizer.clip": ("0", "-1", "inf", "nan", "1e39", "1e-45"),
    "optimizer.unit_weights": ("2", "maybe"),
    "train.batch_size": ("0", "-8", 10**9, 2**21, "8.0"),
    "train.epochs": ("0", "-1", 10**12, "1.5"),
    "train.steps": ("0", "-1", 10**12, 2**31, "1e6"),
    "train.accumulate": ("0", "-1", 10**6, 10**12, "3"),
    "train.updates_per_call": ("0", "-1", 10**9, "2.5"),
    "train.label_smoothing": SHARES,
    "train.ema": SHARES,
    "train.validation": SHARES,
    "train.log_every": ("0", "-1", 10**10),
    "train.evaluate_every": ("0", "-1", 10**10),
    "train.checkpoint_every": ("0", "-1", 10**10),
    "train.buckets": ("0", "-1", 10**9),
    "train.scale": ("2", "yes"),
    "seed": ("-1", 2**32, 2**63, 10**30, "1.5", "nan", "1e3"),
    "seeds": ("0", "-1", 10**9, "2.0"),
    "devices": ("-1", 10**9, "9", "all"),
    "data.test_fraction": ("0", "1", "-0.2", "2", "nan", "inf", "1e-60"),
    "data.seed": ("-1", 2**63, 10**30, "first"),
}
NAMES = {
    "model.arrangement": "pre_nl",
    "model.norm": "lajer",
    "model.final_norm": "rmsn",
    "model.stream": "ad",
    "model.query_key": "cosin",
    "model.activation": "glu",
    "model.positions": "rotery",
    "model.pooling": "means",
    "model.remat": "al",
    "optimizer.algorithm": "adamv",
    "optimizer.schedule": "cosin",
    "optimizer.decay": "kernels",
    "train.precision": "float8",
    "train.select": "lastt",
    "train.score": "tset",
    "data.view": "rowz",
    "data.source": "digit",
}
NORMS = (
    "layer*0+rms",
    "layer*",
    "layer*-1",
    "*1",
    "layer*１",
    f"layer*{10**30}+rms",
    "+",
    "layer+rms",
)
SAID = (
    r"(must|is out of range|in float32|whole number|a number|more than a machine|not divide|true"
    r"|fraction|found)"
)


def short(value: object) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:8]}... of {len(text)}"


def field(path: str, value: object, says: str = "", *more: str) -> Case:
    said = (
        says or rf"(config\.)?{re.escape(path)}\b.*({SAID}|unknown value|not read|under the data's)"
    )
    return Case(
        f"field/{path}={short(value)}", ("train", DIGITS, f"--config.{path}={value}", *more), said
    )


CASES = [field(path, value) for path, values in FIELDS.items() for value in values if value != "16"]
CASES += [
    field(path, name, rf"{re.escape(path)}: unknown (value|name) '{name}'; (did you mean|choose)")
    for path, name in NAMES.items()
]
CASES += [field("model.norm", text, r"config\.model\.norm: .*('|depth|found)") for text in NORMS]
CASES += [
    field("model.kernel", 16, r"config\.model\.kernel: 16 reaches past .*; give at most 15"),
    field("model.stride", 4, r"config\.model\.kernel: 3 is under model\.stride 4: .*; give kernel=4"),
    field("model.stride", 9, r"config\.model\.stride: 9 reaches past .*; give at most 8",
          "--config.model.kernel=none"),
    field("model.kernel", 9, r"config\.model\.kernel: 9 reaches past .*; give at most 8",
          "--config.model.stride=2"),
    field("model.max_length", 3, r"config\.model\.max_length: 3 is under .* 4 tokens of stride 2",
          "--config.model.stride=2"),
    field("model.stride", 2, r"config\.model\.stride: not read: the data are images, not features",
          "--config.data.view=image", "--config.model.kernel=none"),
    field("model.positions", "rotary", r"config\.model\.positions: .* heads of an even width",
          "--config.model.width=6", "--config.model.heads=2"),
    field("model.depth", 10**4, r"config\.model\.width: .* more than a machine",
          "--config.model.width=65536"),
    field("model.width", 2**19, r"config\.model\.width: .* TiB, more than a machine has"),
    field("train.epochs", 10**7, r"config\.train\.epochs: .* steps; give at most",
          "--config.train.batch_size=1"),
    field("seeds", 2, r"config\.seed \+ config\.seeds - 1: 4294967296 is out of range",
          f"--config.seed={2**32 - 1}"),
    field("model.patch", 16, r"config\.model\.patch: 16 does not divide images of 8 x 8",
          "--config.data.view=image", "--config.model.kernel=none"),
    field("optimizer.decay", "kernel,,scale", r"config\.optimizer\.decay: unknown value ''"),
    field("optimizer.momentum", "0.9", r"config\.optimizer\.momentum: adamw does not read it"),
    field("model.widht", 8, r"config\.model\.widht: unknown field; did you mean 'model.width'"),
    field("train", 8, r"config\.train: a section, which has no value; set a field of it"),
    field("data", "digits", r"config\.data: a section, which has no value; set a field of it"),
    field("data.train", "a.npz", r"config\.data\.train: unknown field"),
    field("x" * 5000, 1, r"config\.x+\.\.\.: unknown field"),
]  # fmt: skip


# --- Arguments of a config file ---

ARGUMENTS = {
    "smoek": r"config argument: unknown value 'smoek'; did you mean 'smoke'",
    "depht=3": r"unknown setting 'depht'; did you mean 'depth'",
    "depth=3,depth=4": r"config argument: model\.depth is given twice, '3' and '4'; keep one",
    "depth=3,model.depth=4": r"config argument: model\.depth is given twice",
    "depth=2,smoke": r"preset 'smoke' comes after model\.depth=2, .*write the preset first",
    "smoke,smoke": r"config argument: preset 'smoke' is given twice; keep one",
    "=3": r"config argument: unknown setting ''",
    "depth=": r"config\.model\.depth: '' is not a whole number",
    "depth": r"config argument: unknown value 'depth'",
    "depth==3": r"config\.model\.depth: '=3' is not a whole number",
    "seeds=２": r"config\.seeds: '２' is not a whole number; write 2",
    "data=digits": r"config argument: unknown setting 'data'",
    "depth=0o7": r"config\.model\.depth: '0o7' is not a whole number; write 7",
    "dropout=٠.٥": r"config\.model\.dropout: .* is not a number; write 0\.5",
}
CASES += [
    Case(f"argument/{text}", ("train", f"{DIGITS}:{text}"), says)
    for text, says in ARGUMENTS.items()
]


# --- Config files ---


def written(text: str | bytes, name: str = "c.py") -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        content = text if isinstance(text, bytes) else text.encode()
        (directory / name).write_bytes(content)

    return write


GOOD = "from resnorm_jax.config import experiment\ndef get_config(argument=''):\n"
SECTIONS = "data={'source': 'sample_text', 'train': 16, 'test': 8}"
FILES: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("def get_config(:\n", r"c\.py:1: SyntaxError"),
    "syntax on line 3": ("import os\n\nx = = 1\n", r"c\.py:3: SyntaxError"),
    "indentation": ("def f():\nx = 1\n", r"c\.py:2: IndentationError"),
    "an open bracket": ("x = (1,\n", r"c\.py:1: SyntaxError"),
    "not UTF-8": (b"x = '\xff\xfe'\n", r"c\.py.*(SyntaxError|Unicode)"),
    "NUL bytes": (b"x = 1\0\n", r"c\.py.*(SyntaxError|ValueError)"),
    "an unknown encoding": (b"# coding: latin-99\nx = 1\n", r"c\.py.*SyntaxError"),
    "nested too deep": (
        "x = " + "(" * 5000 + ")" * 5000,
        r"c\.py.*(SyntaxError|MemoryError|Recursion)",
    ),
    "an operator 100,000 times": ("x = " + "-" * 100_000 + "1", r"c\.py.*(Error)"),
    "empty": ("", r"c\.py: no get_config; define get_config\(argument"),
    "no get_config": ("def config(argument):\n    return 1\n", r"c\.py: no get_config"),
    "get_config is no function": ("get_config = 3\n", r"c\.py: no get_config"),
    "returns nothing": (
        "def get_config(argument=''):\n    pass\n",
        r"returns NoneType, not a ConfigDict",
    ),
    "returns a dictionary": (
        "def get_config(a):\n    return {}\n",
        r"returns dict, not a ConfigDict",
    ),
    "returns an empty ConfigDict": (
        "from ml_collections import ConfigDict\ndef get_config(a):\n    return ConfigDict()\n",
        r"data\.source: unknown value ''; choose one of|config\.model\.\w+: unknown field",
    ),
    "two arguments": (
        "def get_config(a, b):\n    return a\n",
        r"get_config does not take the argument",
    ),
    "raises": (
        "def get_config(a):\n    return 1 / 0\n",
        r"c\.py:2: ZeroDivisionError: division by zero",
    ),
    "raises in a call": (
        "def f():\n    raise KeyError('x')\n\n\ndef get_config(a):\n    return f()\n",
        r"c\.py:2: KeyError: 'x'",
    ),
    "raises when read": ("x = 1\nraise OSError('no\\nluck')\n", r"c\.py:2: OSError: no luck"),
    "raises without a word": ("assert False\n", r"c\.py:1: AssertionError$"),
    "an endless message": ("raise ValueError('x' * 10**6)\n", r"c\.py:1: ValueError: x{300}\.\.\."),
    "asserts in a helper": ("import json\njson.loads('[')\n", r"c\.py:2: JSONDecodeError"),
    "imports what is not there": ("import no_such_module\n", r"c\.py:1: ModuleNotFoundError"),
    "imports a name that is not there": ("from os import nothing\n", r"c\.py:1: ImportError"),
    "recursion": ("def f():\n    return f()\nf()\n", r"c\.py:\d: RecursionError"),
    "exits": ("import sys\nsys.exit()\n", r"c\.py:2: SystemExit"),
    "exits with 0": ("import sys\nsys.exit(0)\n", r"c\.py:2: SystemExit: 0"),
    "an undefined name": ("def get_config(a):\n    return experimnt(a)\n", r"c\.py:2: NameError"),
    "no data": (GOOD + "    return experiment(argument)\n", r"config\.data: None is no section"),
    "no source": (GOOD + "    return experiment(data={})\n", r"data\.source: unknown value ''"),
    "an unknown source": (
        GOOD + "    return experiment(data={'source': 'digit'})\n",
        r"data\.source: unknown value 'digit'; did you mean 'digits'",
    ),
    "an unknown section": (
        GOOD + f"    return experiment({SECTIONS}, modle={{}})\n",
        r"config: unknown key 'modle'; did you mean 'model'",
    ),
    "a section that is a number": (
        GOOD + f"    return experiment({SECTIONS}, model=5)\n",
        r"config\.model: 5 is no section; give its fields by name",
    ),
    "data that is a list": (
        GOOD + "    return experiment(data=[])\n",
        r"config\.data: \[\] is no section",
    ),
    "an unknown field": (
        GOOD + f"    return experiment({SECTIONS}, model={{'widht': 8}})\n",
        r"config: unknown key 'widht'; did you mean 'width'",
    ),
    "a key that is no text": (
        GOOD + f"    return experiment({SECTIONS}, model={{3: 8}})\n",
        r"config: unknown key 3;",
    ),
    "a text for a number": (
        GOOD + f"    return experiment({SECTIONS}, model={{'width': 'wide'}})\n",
        r"config\.model\.width: 'wide' is not a whole number",
    ),
    "a text for a number that may be unset": (
        GOOD + f"    return experiment({SECTIONS}, model={{'mlp_width': 'wide'}})\n",
        r"config\.model\.mlp_width: 'wide' is not a whole number",
    ),
    "a float for a whole number": (
        GOOD + f"    return experiment({SECTIONS}, model={{'width': 8.0}})\n",
        r"config\.model\.width: 8\.0 is not a whole number",
    ),
    "True for a number": (
        GOOD + f"    return experiment({SECTIONS}, seed=True)\n",
        r"config\.seed: True is not a whole number",
    ),
    "a list for a name": (
        GOOD + f"    return experiment({SECTIONS}, model={{'norm': ['rms']}})\n",
        r"config\.model\.norm: \['rms'\] is not a string",
    ),
    "a number that no float holds": (
        GOOD + f"    return experiment({SECTIONS}, optimizer={{'learning_rate': 10**400}})\n",
        r"config\.optimizer\.learning_rate: inf is out of range",
    ),
    "a number of 5,000 digits": (
        GOOD + f"    return experiment({SECTIONS}, seed=10**5000)\n",
        r"config\.seed: a number of about 5001 digits is out of range",
    ),
    "NaN": (
        GOOD + f"    return experiment({SECTIONS}, optimizer={{'b1': float('nan')}})\n",
        r"config\.optimizer\.b1: nan is out of range",
    ),
    "None for a field that must be set": (
        GOOD + f"    return experiment({SECTIONS}, model={{'depth': None}})\n",
        r"config\.model\.depth: None is not a whole number",
    ),
    "an option of another source": (
        GOOD + "    return experiment(data={'source': 'digits', 'train': 3})\n",
        r"data\.train: unknown option of source 'digits'",
    ),
}
CASES += [
    Case(f"config file/{name}", ("train", "--config={d}/c.py"), says, written(text))
    for name, (text, says) in FILES.items()
]


def preset(values: str) -> Callable[[Path], None]:
    return written(
        GOOD + f"    return experiment(argument, presets={{'p': {values}}}, {SECTIONS})\n"
    )


CASES += [
    Case("config file/a preset of a field that is not there", ("train", "--config={d}/c.py:p"),
         r"preset 'p': model\.widht: unknown field; did you mean 'model.width'",
         preset("{'model.widht': 3}")),
    Case("config file/a preset of another type", ("train", "--config={d}/c.py:p"),
         r"c\.py:3: TypeError", preset("{'model.width': 'wide'}")),
    Case("config file/takes no argument", ("train", "--config={d}/c.py:smoke"),
         r"get_config does not take the argument 'smoke'; define get_config\(argument",
         written("def get_config():\n    pass\n")),
    Case("config file/a folder", ("train", "--config={d}"), r"--config: \S+ is not a file FILE\.py"),
    Case("config file/a folder c.py", ("train", "--config={d}/c.py"),
         r"--config: \S+c\.py is not a file", lambda d: (d / "c.py").mkdir()),
    Case("config file/a pipe", ("train", "--config={d}/c.py"),
         r"--config: \S+c\.py is not a file", lambda d: os.mkfifo(d / "c.py")),
    Case("config file/a device", ("train", "--config=/dev/zero"), r"--config: /dev/zero is not a file"),
    Case("config file/another suffix", ("train", "--config={d}/c.txt"),
         r"--config: \S+c\.txt is not a file FILE\.py", written("x = 1\n", "c.txt")),
    Case("config file/no suffix", ("train", "--config={d}/c"),
         r"--config: \S+/c is not a file FILE\.py", written("x = 1\n", "c")),
    Case("config file/not there", ("train", "--config={d}/d.py"),
         r"--config: no config file \S+d\.py; (did you mean '\S+c\.py'|choose one of)", written("")),
    Case("config file/nothing there", ("train", "--config={d}/d.py"), r"--config: no config file"),
    Case("config file/under a file", ("train", "--config={d}/c.py/d.py"),
         r"--config: no config file", written("")),
    Case("config file/a link to nowhere", ("train", "--config={d}/c.py"),
         r"--config: no config file", lambda d: (d / "c.py").symlink_to("nothing")),
    Case("config file/a link to itself", ("train", "--config={d}/c.py"),
         r"--config: no config file", lambda d: (d / "c.py").symlink_to("c.py")),
    Case("config file/a name of 300 characters", ("train", "--config={d}/" + "x" * 300 + ".py"),
         r"--config: no config file"),
    Case("config file/empty name", ("train", "--config="), r"--config: no value"),
    Case("config file/of a lab command", ("resnorm", "lab", "certify", "--config={d}/c.py"),
         r"c\.py:1: SyntaxError", written("x = = 1\n")),
    Case("config file/of lab signal", ("resnorm", "lab", "signal", "--config={d}/c.py"),
         r"c\.py:1: NameError", written("nothing\n")),
    Case("config file/of lab compare",
         ("resnorm", "lab", "compare", "--config={d}/c.py", "--output={d}/out"),
         r"c\.py: no get_config", written("")),
    # Valid, so that the mistake beside it is what is told.
    Case("config file/no argument is asked for, and a whole number stands for one",
         ("train", "--config={d}/c.py", "--config.model.dropout=0.5", "--require-accelerator"),
         r"^error: --require-accelerator: jax \S+ found",
         written("from resnorm_jax.config import experiment\ndef get_config():\n"
                 f"    return experiment({SECTIONS}, model={{'dropout': 0}})\n")),
]  # fmt: skip


# --- The command line of training ---

TRAIN = {
    "an unknown option": (("--wrkdir=a",), r"--wrkdir: unknown option; did you mean 'workdir'"),
    "a word": (("extra",), r"unexpected argument 'extra'; write --config\.path"),
    "a long word": (("x" * 5000,), r"unexpected argument 'x+\.\.\."),
    "workdir without a value": (("--workdir",), r"--workdir: no value; write --workdir=VALUE"),
    "workdir empty": (("--workdir=",), r"--workdir: no value"),
    "workdir before an option": (("--workdir", "--config.seed=1"), r"--workdir: no value"),
    "workdir twice": (
        ("--workdir={d}/a", "--workdir={d}/b"),
        r"--workdir: given twice, .*; keep one",
    ),
    "config twice": ((DIGITS, "--config={configs}/text.py"), r"--config: given twice"),
    "a field twice": (
        ("--config.seed=1", "--config.seed=2"),
        r"--config\.seed: given twice, '1' and '2'",
    ),
    "a field without a value": (("--config.seed",), r"--config\.seed: no value"),
    "a field empty": (("--config.model.norm=",), r"--config\.model\.norm: no value"),
    "a field without a name": (("--config.=3",), r"config\.: unknown field"),
    "an abbreviated option": (
        ("--work={d}/run",),
        r"--work: unknown option; did you mean 'workdir'",
    ),
    "no accelerator": (
        ("--require-accelerator",),
        r"--require-accelerator: jax \S+ found no GPU or TPU: ",
    ),
    "a flag with a value": (
        ("--require-accelerator=yes",),
        r"--require-accelerator: takes no value",
    ),
    "a blank": ((" ",), r"unexpected argument ' '"),
    "two hyphens": (("--",), r"unexpected argument '--'"),
    "three hyphens": (("---=x",), r"unexpected argument '---=x'"),
}
CASES += [Case(f"train/{name}", ("train", *argv), says) for name, (argv, says) in TRAIN.items()]


# --- Commands ---

RESNORM = {
    "an unknown command": (("evalute", "run"), r"no command 'evalute'; did you mean 'evaluate'"),
    "an unknown lab command": (("lab", "signals"), r"no command 'signals'; did you mean 'signal'"),
    "list what is not there": (("list", "norm"), r"invalid choice: 'norm'"),
    "list/abbreviated": (("list", "--mark"), r"unrecognized arguments: --mark"),
    "evaluate/no run": (("evaluate",), r"the following arguments are required: run"),
    "evaluate/no such run": (("evaluate", "{d}/run"), r"not a run directory"),
    "evaluate/abbreviated": (
        ("evaluate", "{d}", "--out={d}/a.json"),
        r"unrecognized arguments: --out",
    ),
    "evaluate/seed under 0": (("evaluate", "{d}", "--seed=-1"), r"--seed: -1 is out of range"),
    "evaluate/huge seed": (("evaluate", "{d}", f"--seed={2**63}"), r"--seed: \d+ is out of range"),
    "evaluate/seed with _": (
        ("evaluate", "{d}", "--seed=1_0"),
        r"--seed: '1_0' is not .*; write 10",
    ),
    "evaluate/two seeds": (("evaluate", "{d}", "--seed=1", "--seed=2"), r"--seed: given twice"),
    "evaluate/checkpoint": (
        ("evaluate", "{d}", "--checkpoint=first"),
        r"--checkpoint: invalid choice",
    ),
    "evaluate/two runs": (("evaluate", "{d}/a", "{d}/b"), r"unrecognized arguments: \S+b"),
    "evaluate/run empty": (("evaluate", ""), r"empty; give a value"),
    "predict/no input": (("predict", "{d}"), r"give a file, or --text"),
    "predict/row 0": (
        ("predict", "a", "b", "--explain={d}/a.html", "--row=0"),
        r"--row: 0 must be over 0",
    ),
    "predict/row that is no number": (
        ("predict", "a", "b", "--row=first"),
        r"--row: 'first' is not",
    ),
    "predict/row unread": (("predict", "a", "b", "--row=1"), r"--row: not read without --explain"),
    "predict/seed": (("predict", "a", "b", "--seed=1e3"), r"--seed: '1e3' is not .*; write 1000"),
    "show/depth": (
        ("show", "pre_ln", "--depth=1000000000"),
        r"--depth: 1000000000 is out of range",
    ),
    "show/depth 0": (("show", "pre_ln", "--depth=0"), r"--depth: 0 must be over 0"),
    "show/depth with a blank": (
        ("show", "pre_ln", "--depth= 5"),
        r"--depth: ' 5' is not .*; write 5",
    ),
    "show/layer": (("show", "pre_ln", "--layer=13"), r"--layer: 13 is none of 12 layers"),
    "show/width": (
        ("show", "pre_ln", "--width=100000000000"),
        r"--width: 100000000000 is out of range",
    ),
    "show/heads": (("show", "pre_ln", "--heads=5"), r"--heads: 5 does not divide --width 64"),
    "show/mlp-width": (("show", "pre_ln", "--mlp-width=-1"), r"--mlp-width: -1 must be over 0"),
    "show/other": (("show", "deepnorm", "--other=-4"), r"--other: -4 must not be negative"),
    "show/norm": (("show", "pre_ln", "--norm=layer*0+rms"), r"norm: 'layer\*0' in .* is no layer"),
    "show/depth of a norm": (
        ("show", "rms", "--depth=3"),
        r"--depth: not read for a row of the table norm",
    ),
    "show/json of a norm": (
        ("show", "rms", "--json"),
        r"--json: not read for a row of the table norm",
    ),
    "show/json and code": (("show", "pre_ln", "--json", "--code"), r"--code: not read with --json"),
    "show/json and layer": (
        ("show", "pre_ln", "--json", "--layer=1"),
        r"--layer: not read with --json",
    ),
    "show/abbreviated": (("show", "pre_ln", "--dep=3"), r"unrecognized arguments: --dep=3"),
    "show/two depths": (("show", "pre_ln", "--depth=3", "--depth=4"), r"--depth: given twice"),
    "show/an option of two lines": (("show", "pre_ln", "--a\nb"), r"unrecognized arguments: --a b"),
    "article/seeds": (
        ("lab", "article", "--output={d}/o", "--seeds=1"),
        r"--seeds: 1 is out of range",
    ),
    "article/huge seeds": (
        ("lab", "article", "--output={d}/o", "--seeds=1000000000000"),
        r"--seeds: 1",
    ),
    "theory/seeds": (
        ("lab", "theory", "--output={d}/o", "--seeds=0"),
        r"--seeds: 0 is out of range",
    ),
    "theory/list and output": (
        ("lab", "theory", "--list", "--output={d}/o"),
        r"--output: not read with --list",
    ),
    "theory/only": (
        ("lab", "theory", "--output={d}/o", "--only=mhc_gian"),
        r"did you mean 'mhc_gain'",
    ),
    "signal/rows": (("lab", "signal", "--rows=0"), r"--rows: 0 must be over 0"),
    "signal/seed": (("lab", "signal", f"--seed={2**32}"), r"--seed: 4294967296 is out of range"),
    "signal/only": (("lab", "signal", "--only=stream_powr"), r"did you mean 'stream_power'"),
    "signal/only empty": (("lab", "signal", "--only="), r"--only: empty; give a value"),
    "compare/seeds": (
        ("lab", "compare", "--output={d}/o", "--seeds=0"),
        r"--seeds: 0 must be over",
    ),
    "compare/steps": (
        ("lab", "compare", "--output={d}/o", "--steps=0"),
        r"--steps: 0 must be over 0",
    ),
    "compare/huge steps": (
        ("lab", "compare", "--output={d}/o", "--steps=1000000000000"),
        r"--steps: ",
    ),
    "compare/depths": (
        ("lab", "compare", "--output={d}/o", "--depths=1e300"),
        r"--depths: '1e300' is not",
    ),
    "compare/depth 0": (
        ("lab", "compare", "--output={d}/o", "--depths=3,0"),
        r"--depths: 0 must be over 0",
    ),
    "compare/rates": (
        ("lab", "compare", "--output={d}/o", "--learning-rates=1e-60"),
        r"--learning-rates: .* float32",
    ),
    "compare/rate NaN": (
        ("lab", "compare", "--output={d}/o", "--learning-rates=nan"),
        r"--learning-rates: nan",
    ),
    "certify/depth": (
        ("lab", "certify", "--config={configs}/digits.py", "--depth=-1"),
        r"--depth: -1 must be over 0",
    ),
    "certify/arrangements": (
        ("lab", "certify", "--config={configs}/digits.py", "--arrangements=pre_nl"),
        r"--arrangements: unknown name",
    ),
    "certify/arrangements of a comma": (
        ("lab", "certify", "--config={configs}/digits.py", "--arrangements=pre_ln,,keel"),
        r"--arrangements: unknown name ''",
    ),
    "compare/depths of a comma": (
        ("lab", "compare", "--output={d}/o", "--depths=3,"),
        r"--depths: '' is not a whole number; write e\.g\. 3,24",
    ),
    "certify/against no grid": (
        ("lab", "certify", "--config={configs}/digits.py", "--against={d}"),
        r"holds no grid; make one with resnorm lab compare",
    ),
    "prune/rows": (("lab", "prune", "{d}", "--rows=0"), r"--rows: 0 must be over 0"),
    "prune/order unread": (
        ("lab", "prune", "{d}", "--only=magnitude", "--order=greedy"),
        r"--order: not read with --only=magnitude",
    ),
    "prune/keep unread": (
        ("lab", "prune", "{d}", "--only=int8", "--keep=0.5"),
        r"--keep: not read with --only=int8",
    ),
    "prune/keep": (
        ("lab", "prune", "{d}", "--keep=1_0"),
        r"--keep: '1_0'; give shares from 0 to 1",
    ),
    "prune/seed": (("lab", "prune", "{d}", "--seed=-1"), r"--seed: -1 is out of range"),
    "bench/only": (("bench", "--only=norms"), r"--only: invalid choice: 'norms'"),
    "bench/names": (("bench", "--names=rms"), r"--names: not read without --only="),
    "bench/over": (("bench", "--over=norm"), r"--over: not read without --only=digits or vowels"),
    "bench/dtype": (
        ("bench", "--only=depth", "--dtype=bfloat16"),
        r"--dtype: not read with --only=depth",
    ),
    "bench/an unknown option": (("bench", "--quik"), r"unrecognized arguments: --quik"),
}
CASES += [
    Case(f"command/{name}", ("resnorm", *argv), says) for name, (argv, says) in RESNORM.items()
]


GRIDS = {
    "not JSON": "{",
    "a list": "[]",
    "no depths": '{"arrangements": []}',
    "depths that are no list": '{"arrangements": [], "depths": 3}',
    "nested": "[" * 100_000,
}
CASES += [
    Case(
        f"grid/{name}",
        ("resnorm", "lab", "certify", "--config={configs}/digits.py", "--against={d}"),
        r"grid\.json: not as a grid writes it \(.*\); name another folder",
        written(text, "grid.json"),
    )
    for name, text in GRIDS.items()
]


# --- Where commands write: an option of each, and what stands in the way ---

TO_FILES = {
    "evaluate": (("evaluate", "{d}/none"), "--output", "a.json"),
    "predict": (("predict", "{d}/none", "x.ts"), "--output", "a.csv"),
    "explain": (("predict", "{d}/none", "x.ts"), "--explain", "a.html"),
    "bench": (("bench", "--quick"), "--output", "a.json"),
    "bench depth": (("bench", "--quick", "--only=depth"), "--output", "a.json"),
}
TO_FOLDERS = {
    "article": (("lab", "article", "--quick"), "report.json"),
    "theory": (("lab", "theory", "--only=mhc_gain"), "theory.json"),
    "signal": (("lab", "signal"), "signal.html"),
    "compare": (("lab", "compare"), "other.txt"),
    "certify": (("lab", "certify", "--config={configs}/digits.py"), "certify.json"),
    "prune": (("lab", "prune", "{d}/none"), "prune.json"),
}
PLACES: dict[str, tuple[str, str]] = {
    "in /proc": ("/proc/{name}", r"cannot write in /proc: .*name another place"),
    "a name of 300 characters": (
        "{d}/" + "x" * 300 + "{name}",
        r"File name too long; name another place",
    ),
    "under a file": ("{d}/file/{name}", r"(Not a directory|is a file)"),
    "empty": ("", r"empty; give a value"),
}


def kept(*names: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        for name in names:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("mine")

    return write


for command, (argv, option, name) in TO_FILES.items():
    CASES += [
        Case(f"output/{command}/exists", ("resnorm", *argv, f"{option}={{d}}/{name}"),
             rf"{option}: \S+ exists; name a new file", kept(name)),
        Case(f"output/{command}/a link to nowhere", ("resnorm", *argv, f"{option}={{d}}/{name}"),
             rf"{option}: \S+ exists; name a new file",
             lambda d, name=name: (d / name).symlink_to("nothing")),
        Case(f"output/{command}/a folder", ("resnorm", *argv, f"{option}={{d}}/{name}"),
             rf"{option}: \S+ exists; name a new file", lambda d, name=name: (d / name).mkdir()),
    ]  # fmt: skip
    CASES += [
        Case(f"output/{command}/{place}",
             ("resnorm", *argv, f"{option}={where.replace('{name}', name)}"),
             rf"{option}: .*{says}", kept("file"))
        for place, (where, says) in PLACES.items()
    ]  # fmt: skip
for command, (argv, name) in TO_FOLDERS.items():
    CASES += [
        Case(f"output/{command}/in use", ("resnorm", *argv, "--output={d}/out"),
             r"--output: \S+ (exists|holds other files); name a new folder", kept(f"out/{name}")),
        Case(f"output/{command}/a file", ("resnorm", *argv, "--output={d}/out"),
             r"--output: \S+ is a file; name a directory", kept("out")),
        Case(f"output/{command}/a link to nowhere", ("resnorm", *argv, "--output={d}/out"),
             r"--output: \S+ is a file; name a directory", lambda d: (d / "out").symlink_to("nothing")),
    ]  # fmt: skip
    CASES += [
        Case(f"output/{command}/{place}",
             ("resnorm", *argv, f"--output={where.replace('{name}', 'out')}"),
             rf"--output: .*{says}", kept("file"))
        for place, (where, says) in PLACES.items()
    ]  # fmt: skip
CASES += [
    Case("output/explain/its JSON exists",
         ("resnorm", "predict", "{d}/none", "x.ts", "--explain={d}/a.html"),
         r"--explain: \S+a\.json exists", kept("a.json")),
    Case("output/predict/suffix", ("resnorm", "predict", "a", "b", "--output={d}/a.txt"),
         r"--output: \S+: write to a \.csv or a \.jsonl file"),
    Case("output/explain/suffix", ("resnorm", "predict", "a", "b", "--explain={d}/a.txt"),
         r"--explain: \S+: write to a \.html file"),
    Case("output/bench digits/exists",
         ("resnorm", "bench", "--quick", "--only=digits", "--output={d}/a.json"),
         r"--output: \S+ holds other results; name another file", kept("a.json")),
]  # fmt: skip
