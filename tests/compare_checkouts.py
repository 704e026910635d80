"""Show that two checkouts of this repository compute the same bits on this machine.

::

    python tests/compare_checkouts.py OLD NEW [--only=train/ngpt,norm/] [--jobs=2] [--out=FILE.json]
    python tests/compare_checkouts.py OLD --keep=DIR        # lowers OLD alone and keeps its results
    python tests/compare_checkouts.py DIR NEW               # compares with what was kept
    python tests/compare_checkouts.py OLD NEW --run --only=...      # runs what it compares

A case is a model with its random input: the variables at first, and while training the outputs, the
new state, and the gradients by every variable and input, each with its path in the tree. Every
parameter is moved away from its first value, so that no gate or bias stands at 0 or 1. Each checkout
does this file's cases in a process of its own, in two passes:

1. Each program is traced and lowered. Two programs of one text, in which the paths stand too, are
   given one executable by one compiler: their bits are equal, and nothing need be compiled.
2. Cases whose programs differ in either checkout are compiled and run in both, and their arrays are
   compared bit by bit. ``--run`` does so with all cases, at some 10 times the cost.

A case that fails, or that one checkout alone has, is a difference. The exit status is 1 if there is
any. OLD and NEW are folders that hold ``resnorm_jax``, or results kept by an earlier run: those lie in
``DIR``, or for two checkouts in ``DIR/old`` and ``DIR/new``. Results that were kept name their
checkout, which must still be there, unchanged, for the second pass.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
import traceback
import zlib
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

B, L, S, D, H, DEPTH = 2, 5, 4, 8, 2, 5
DROPS = {"dropout": 0.1, "attention_dropout": 0.1, "drop_path": 0.2}
SHOWN = 8  # differences printed for each case
PROGRAMS, VALUES = "programs.jsonl", "values.jsonl"  # of each pass: a line a case


# The worker: it runs in the checkout's process, where `resnorm_jax` is the checkout's.


def cases():
    """Return case name to a function of a `Lowering` or a `Running`."""
    import jax.numpy as jnp
    from flax.core import FrozenDict

    import resnorm_jax as rn

    rows = rn.arrangements.names()
    out = {}
    for row in rows:
        out[f"train/{row}"] = partial(case_train, row)
        out[f"intermediates/{row}"] = partial(case_intermediates, row)
    for row in rows:
        out[f"decoder/{row}"] = partial(case_decoder, row)
    for row in rows:
        out[f"single/{row}"] = partial(case_single, row)
    for norm in rn.norms.names():
        out[f"norm/{norm}"] = partial(case_encoder, depth=2, norm=norm)
    for row in ("pre_ln", "mix_ln", "hybrid_norm", "sandwich_order"):
        out[f"norm_by_layer/{row}"] = partial(
            case_encoder, depth=DEPTH, arrangement=row, norm="layer*2+rms"
        )
    for slot, options in SLOTS.items():
        out[f"slot/{slot}"] = partial(
            case_encoder, depth=3, norms=FrozenDict({slot: "rms"}), **options
        )
    for query_key in ("none", "head", "full", "cosine", "cosine_learned", "unit_scaled"):
        out[f"query_key/{query_key}"] = partial(case_encoder, depth=2, query_key=query_key)
    for stream in rn.streams.names():
        out[f"stream/{stream}"] = partial(case_encoder, depth=3, stream=stream)
    for row in BFLOAT16:
        out[f"bfloat16/{row}"] = partial(case_encoder, depth=3, arrangement=row, dtype=jnp.bfloat16)
    for row in ("pre_ln", "deepnorm", "ngpt", "fixup"):
        for name, options in OPTIONS.items():
            out[f"{name}/{row}"] = partial(case_encoder, arrangement=row, **options)
    for row in ("pre_ln", "t_fixup"):
        out[f"classifier/{row}"] = partial(case_classifier, row)
    return out


SLOTS = {
    "embedding_norm": {}, "value_norm": {}, "heads_norm": {}, "mlp_norm": {}, "norm_before": {},
    "final_norm": {}, "attention/norm_before": {}, "query_key_norm": {"query_key": "head"},
    "norm_after": {"arrangement": "sandwich_ln"}, "norm_on_stream": {"arrangement": "post_ln"},
    "parallel_norm": {"arrangement": "parallel_two_norms"},
}  # fmt: skip
# Two attentions in one layer: their cross-attentions would have the same name.
DECODER_ONLY = ("sandwich_order",)
BFLOAT16 = (
    "pre_ln", "post_ln", "deepnorm", "rezero", "fixup", "gtrxl", "deep_delta", "adaln_zero",
    "attention_residuals", "value_residual", "prores", "dynamic_hyper_connections", "mhc",
    "resi_dual", "mix_ln", "ngpt", "admin",
)  # fmt: skip
OPTIONS = {
    "remat_every": {"depth": 4, "remat": "full", "remat_every": 2},
    "remat_dots": {"depth": 3, "remat": "dots"},
    "rotary": {"depth": 3, "rotary": True},
    "swiglu": {"depth": 3, "activation": "swiglu"},
    "use_bias": {"depth": 3, "use_bias": False},
}


def case_train(row, do):
    """An encoder while training, scanned and unrolled, on the same variables."""
    variables = encoder_start(do, row)
    for name, unroll in (("scanned", 1), ("unrolled", DEPTH)):
        model = encoder(arrangement=row, depth=DEPTH, unroll=unroll, **DROPS)
        do.derivatives(name, partial(train, model), variables, data("x"))


def case_intermediates(row, do):
    """All that an encoder shows of itself, with layers computed again going backward."""
    model = encoder(arrangement=row, depth=DEPTH, remat="full")

    def apply(variables, x):
        return model.apply(
            variables, x, data("mask"), return_intermediates=True, attention_weights=True
        )

    do.derivatives("pass", apply, encoder_start(do, row), data("x"))


def case_decoder(row, do):
    """A decoder while training, beside an encoder of another depth."""
    import resnorm_jax as rn

    cross = row not in DECODER_ONLY
    model = rn.TransformerDecoder(
        depth=3, heads=H, arrangement=row, encoder_depth=4, cross=cross, **DROPS
    )
    inputs = (data("x"), data("memory")) if cross else (data("x"),)
    masks = {name: data(name) for name in (("mask", "memory_mask") if cross else ("mask",))}
    variables = do.start(partial(model.init, **masks), *inputs)
    do.derivatives("train", partial(train, model, masks=masks), variables, *inputs)


def case_single(row, do):
    """An encoder layer, a decoder layer and a residual block, each alone."""
    import flax.linen as nn

    import resnorm_jax as rn

    encoder_layer = rn.TransformerEncoderLayer(heads=H, arrangement=row)
    decoder_layer = rn.TransformerDecoderLayer(heads=H, arrangement=row)
    modules = {
        "encoder_layer": (encoder_layer, ("mask",)),
        "decoder_layer": (decoder_layer, ("memory", "mask", "memory_mask")),
        "block": (rn.ResidualBlock(nn.Dense(D), arrangement=row), ()),
    }

    def init(key, x):
        return {n: m.init(key, x, *map(data, given)) for n, (m, given) in modules.items()}

    def apply(variables, x):
        each = modules.items()
        outs = {n: m.apply(variables[n], x, *map(data, given)) for n, (m, given) in each}
        return sum(outs.values()), outs

    do.derivatives("pass", apply, do.start(init, data("x")), data("x"))


def case_encoder(do, **options):
    """An encoder with some choices, while training."""
    model = encoder(**options)
    variables = do.start(model.init, data("x"), data("mask"))
    x = data("x").astype(options.get("dtype", np.float32))
    do.derivatives("train", partial(train, model), variables, x)


def case_classifier(row, do):
    """The classifier that a config makes, on tokens."""
    from resnorm_jax.build import build_model
    from resnorm_jax.config import from_dict

    sizes = {"width": D, "depth": 3, "heads": H}
    config = from_dict({"data": {"source": "listops"}, "model": {**sizes, "arrangement": row}})
    classes, vocabulary = list("abc"), list("abcdefg")
    meta = {"kind": "tokens", "classes": classes, "vocabulary": vocabulary, "max_length": L}
    model = build_model(config, meta)
    tokens = np.random.default_rng(5).integers(0, len(vocabulary), (B, L))
    variables = do.start(model.init, tokens, data("mask"))
    do.derivatives("train", lambda v: train(model, v, tokens), variables)


def encoder(**options):
    import resnorm_jax as rn

    return rn.TransformerEncoder(heads=H, **options)


def encoder_start(do, row):
    return do.start(encoder(arrangement=row, depth=DEPTH).init, data("x"), data("mask"))


@cache
def data(name):
    """Return an input by name; two rows of different lengths."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    arrays = {
        "x": rng.normal(size=(B, L, D)).astype(np.float32),
        "memory": rng.normal(size=(B, S, D)).astype(np.float32),
        "mask": np.arange(L) < np.array([[L], [L - 2]]),
        "memory_mask": np.arange(S) < np.array([[S - 1], [S]]),
    }
    return arrays[name]


def train(model, variables, *inputs, masks=None):
    """Apply a model with dropout; return the output and the new state."""
    import jax

    return model.apply(
        variables,
        *inputs,
        **(masks or {"mask": data("mask")}),
        deterministic=False,
        rngs={"dropout": jax.random.key(1)},
        mutable=[name for name in variables if name != "params"],
    )


class Programs:
    """What a case is given: it makes programs, and what they are or give is kept by name."""

    def __init__(self):
        self.seen = {}

    def start(self, init, *inputs):
        """Return a model's variables, moved from where they start."""
        import jax

        return moved(self.program("start", init, jax.random.key(0), *inputs))

    def derivatives(self, name, apply, *inputs):
        """See ``apply(*inputs)``, a pair, and a random pull-back of its first to each input."""
        import jax
        import jax.numpy as jnp

        def loss(*inputs):
            out, extra = apply(*inputs)
            cotangent = jax.random.normal(jax.random.key(2), out.shape, jnp.float32)
            return jnp.sum(out * cotangent), {"out": out, "extra": extra}

        every = tuple(range(len(inputs)))
        gradient = jax.grad(loss, every, has_aux=True, allow_int=True)

        def program(*inputs):
            gradients, seen = gradient(*inputs)
            return {**seen, "gradient": gradients}

        self.program(name, program, *inputs)


class Lowering(Programs):
    """Keeps a digest of each program's text; arrays have shapes but no values."""

    def program(self, name, function, *inputs):
        import jax

        lowered = jax.jit(function).lower(*inputs)
        text = renamed(lowered.as_text())
        self.seen[name] = f"{len(text)} characters {hashlib.sha256(text.encode()).hexdigest()}"
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), lowered.out_info)


class Running(Programs):
    """Keeps all arrays."""

    def program(self, name, function, *inputs):
        import jax

        out = jax.tree.map(np.asarray, jax.jit(function)(*inputs))
        for path, array in jax.tree_util.tree_flatten_with_path(out)[0]:
            key = jax.tree_util.keystr(path, simple=True, separator="/")
            self.seen[f"{name}/{key}"] = array
        return out


def renamed(text):
    """Number the functions of a program's text: what they are called in Python decides no bits."""
    defined = re.findall(r"func\.func (?:public |private )?@([\w.$-]+)\(", text)
    numbers = {name: f"@f{number}" for number, name in enumerate(defined)}
    return re.sub(r"@([\w.$-]+)", lambda found: numbers.get(found[1], found[0]), text)


def moved(variables):
    """Move each variable from its first value by a random amount that its path decides."""
    import jax

    def move(path, value):
        if isinstance(value, jax.ShapeDtypeStruct):
            return value
        name = jax.tree_util.keystr(path)
        if "'schedule'" in name:
            return value + np.asarray(1700, value.dtype)  # updates: later layers are still to come
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        change = 0.1 * rng.normal(size=value.shape)
        change = change if "'params'" in name else abs(change)  # variances stay positive
        return (value + change).astype(value.dtype)

    return jax.tree_util.tree_map_with_path(move, variables)


def work(options):
    """Do the cases in one way and write the results into a folder."""
    import jax

    import resnorm_jax as rn

    label, folder = options.worker, options.old
    print(f"{label}: {Path(rn.__file__).parent}", flush=True)
    chosen = cases()
    if options.run:
        names = json.loads((folder / "cases.json").read_text())
        chosen = {name: chosen[name] for name in names}
        (folder / "values").mkdir(exist_ok=True)
    chosen = {n: c for n, c in chosen.items() if wanted(n, options.only)}
    began = time.monotonic()
    with open(folder / (VALUES if options.run else PROGRAMS), "w") as index:
        if not options.run:
            print(json.dumps(surroundings()), file=index, flush=True)
        for number, (name, case) in enumerate(chosen.items(), 1):
            line = run_case(folder, name, case, options.run)
            print(json.dumps(line), file=index, flush=True)
            left = (time.monotonic() - began) / number * (len(chosen) - number) / 60
            fault = f" FAILED: {line['error']}" if "error" in line else ""
            shown = f"{label} {number}/{len(chosen)} {name} {line['seconds']:.1f} s"
            print(f"{shown}, {left:.1f} min left{fault}", flush=True)
            if number % 20 == 0:
                jax.clear_caches()  # a process may have only so many memory maps
    print(f"{label}: {time.process_time():.0f} s of processor time", flush=True)


def run_case(folder, name, case, run):
    began, line = time.monotonic(), {"case": name}
    do = Running() if run else Lowering()
    try:
        case(do=do)
        check_imports()
        line["digests"] = {path: digest(a) for path, a in do.seen.items()} if run else do.seen
        if run:
            np.savez(values_file(folder, name), **{p: plain(a) for p, a in do.seen.items()})
    except Exception as error:
        line["error"] = f"{type(error).__name__}: {error}"
        line["traceback"] = traceback.format_exc()
    return {**line, "seconds": round(time.monotonic() - began, 2)}


def check_imports():
    """Raise ImportError for a module of another tree: an editable install fills gaps silently."""
    for name, module in sys.modules.items():
        file = getattr(module, "__file__", None)
        ours = name.partition(".")[0] == "resnorm_jax" and file
        if ours and not Path(file).resolve().is_relative_to(Path.cwd().resolve()):
            raise ImportError(f"{name} is not in {Path.cwd()} but comes from {file}")


def digest(array):
    return f"{array.dtype.name} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def plain(array):
    """Return numbers that NumPy can store, for reports of how far two arrays are apart."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def values_file(folder, name):
    return folder / "values" / f"{name.replace('/', '.')}.npz"


def surroundings():
    """Return what decides the bits beside the checkout."""
    versions = {
        name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")
    }
    script = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return {
        "checkout": os.getcwd(),
        **versions,
        "python": platform.python_version(),
        "processor": processor(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "script": script,
    }


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


# The parent: it imports neither checkout.


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?")
    parser.add_argument("--only", default="", help="parts of case names, by comma")
    parser.add_argument("--jobs", type=int, default=2, help="checkouts at the same time")
    parser.add_argument("--keep", type=Path, help="folder for the results")
    parser.add_argument("--out", type=Path, help="JSON file for the comparison")
    parser.add_argument("--run", action="store_true", help="run programs of the same text too")
    parser.add_argument("--worker", metavar="LABEL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    if options.new is None and (options.keep is None or options.run):
        parser.error("give a second checkout, or --keep=DIR without --run")
    with TemporaryDirectory() as scratch:
        folders = programs(options, Path(scratch))
        if options.new is None:
            lines = read(folders["old"] / PROGRAMS, options.only)
            failed = [name for name, line in lines.items() if "error" in line]
            sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
        sys.exit(compare(folders["old"], folders["new"], options))


def programs(options, scratch):
    """Lower the programs of what is a checkout; return where each side's results are."""
    folders, waiting = {}, {}
    for label, given in (("old", options.old), ("new", options.new)):
        if given is None:
            continue
        if (given / PROGRAMS).exists():
            folders[label] = given
            continue
        if not (given / "resnorm_jax" / "__init__.py").exists():
            sys.exit(f"{given}: neither a checkout (no resnorm_jax/) nor results (no {PROGRAMS})")
        alone = options.keep is not None and options.new is None
        folders[label] = options.keep if alone else (options.keep or scratch) / label
        waiting[label] = (given, folders[label])
    launch(waiting, options, run=False)
    return folders


def launch(waiting, options, run):
    """Start a process for each checkout and folder by label, so many at a time; wait for all."""
    todo = list(waiting.items())
    while todo:
        processes = []
        for label, (checkout, folder) in todo[: max(1, options.jobs)]:
            folder.mkdir(parents=True, exist_ok=True)
            settings = {"PYTHONPATH": str(checkout.resolve()), "JAX_PLATFORMS": "cpu"}
            command = [sys.executable, str(Path(__file__).resolve()), str(folder.resolve())]
            command += [f"--only={options.only}", f"--worker={label}", *["--run"] * run]
            environment = {**os.environ, **settings}
            processes.append(subprocess.Popen(command, env=environment, cwd=checkout))
        todo = todo[len(processes) :]
        if sum(process.wait() != 0 for process in processes):
            sys.exit("a process ended early: see above")


def wanted(name, only):
    return not only or any(part in name for part in only.split(",") if part)


def read(index, only):
    """Return case name to its line of results."""
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    return {x["case"]: x for x in lines if "case" in x and wanted(x["case"], only)}


def compare(old, new, options):
    """Print a line for each case; return 1 if any differs."""
    heads = [json.loads((f / PROGRAMS).read_text().splitlines()[0]) for f in (old, new)]
    checkouts = [Path(head.pop("checkout")) for head in heads]
    if heads[0] != heads[1]:
        print("note: the results were made in different surroundings:", *heads, sep="\n  ")
    lowered = [read(folder / PROGRAMS, options.only) for folder in (old, new)]
    names = list(dict.fromkeys([*lowered[0], *lowered[1]]))
    report = {name: faults([side.get(name) for side in lowered]) for name in names}
    sound = [name for name in names if not report[name]]
    same = {n for n in sound if lowered[0][n]["digests"] == lowered[1][n]["digests"]}
    again = [name for name in sound if options.run or name not in same]
    print(f"{len(names)} cases, {len(same)} of the same programs; {len(again)} to run")
    if again:
        run_again(again, (old, new), checkouts, options, report)
    for name in names:
        how = "equal, bit by bit" if name in again else "equal, the same programs"
        print(
            f"{name}: " + ("\n  ".join(["DIFFERS", *short(report[name])]) if report[name] else how)
        )
    wrong = sum(bool(lines) for lines in report.values())
    print(f"{len(names)} cases: {len(names) - wrong} equal, {wrong} differ")
    if options.out is not None:
        summary = {"cases": len(names), "same_programs": sorted(same), "differences": report}
        options.out.write_text(json.dumps(summary, indent=1) + "\n")
    return int(wrong > 0 or not names)


def short(lines):
    """Return the first lines, and how many more ``--out`` has."""
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]


def run_again(names, folders, checkouts, options, report):
    """Run cases in both checkouts and add to the report where their arrays differ."""
    for folder in folders:
        (folder / "cases.json").write_text(json.dumps(names))
    both = zip(checkouts, folders, strict=True)
    launch(dict(zip(("old", "new"), both, strict=True)), options, run=True)
    values = [read(folder / VALUES, "") for folder in folders]
    for name in names:
        lines = [side.get(name) for side in values]
        report[name] += faults(lines) or differences(name, lines, folders)


def faults(lines):
    """Return what keeps the two sides' lines of a case from being compared."""
    found = []
    for side, other, line in zip(("old", "new"), ("new", "old"), lines, strict=True):
        if not line:
            found.append(f"only in {other}")
        elif "error" in line:
            found.append(f"failed in {side}: {line['error']}")
    return found


def differences(name, lines, folders):
    """Return one text for each path whose arrays differ."""
    old, new = (line["digests"] for line in lines)
    stored = [np.load(values_file(folder, name)) for folder in folders]
    found = []
    for path in dict.fromkeys([*old, *new]):
        if path not in old or path not in new:
            found.append(f"{path}: only in {'old' if path in old else 'new'}")
        elif old[path] != new[path]:
            found.append(f"{path}: {distance(path, old, new, stored)}")
    return found


def distance(path, old, new, stored):
    kinds = [side[path].rpartition(" ")[0] for side in (old, new)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]} became {kinds[1]}"
    a, b = (values[path].astype(np.float64) for values in stored)
    most = np.max(np.abs(a), initial=0)
    return f"max abs difference {np.max(np.abs(a - b), initial=0):.3g} of {most:.3g}"


if __name__ == "__main__":
    main()
