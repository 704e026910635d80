"""What a command prints: the header line, the model's size and the tables of results."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resnorm_jax.reporting.metrics import headlines, summarize_seeds

LABELS = {
    "accuracy": "accuracy",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "average_precision": "AP",
    "log_loss": "log loss",
    "expected_calibration_error": "ECE",
}


def header_line(backend: str, devices: Sequence[str], versions: Mapping[str, str]) -> str:
    """Return e.g. ``cpu, 8 devices (TFRT_CPU), jax 0.10.2, flax 0.12.8``.

    Args:
      backend: platform name.
      devices: one name each; a trailing ``_0`` or ``:0`` is left out, and equal names shown once.
      versions: package names to versions, in the order to show.
    """
    kinds = list(dict.fromkeys(re.sub(r"[_:]\d+$", "", name) for name in devices))
    count = f"{len(devices)} device" + ("" if len(devices) == 1 else "s")
    packages = [f"{name} {version}" for name, version in versions.items()]
    return ", ".join([backend, f"{count} ({', '.join(kinds)})", *packages])


def runtime_line() -> str:
    """Return the header line of this process; starts jax's backend if it is not started."""
    import flax
    import jax

    from resnorm_jax.version import __version__

    # The kind names the hardware ("NVIDIA H100 80GB HBM3"), except on CPU, where it says "cpu".
    names = [d.device_kind if d.device_kind != d.platform else str(d) for d in jax.devices()]
    versions = {"jax": jax.__version__, "flax": flax.__version__, "resnorm_jax": __version__}
    return header_line(jax.default_backend(), names, versions)


def _key_name(entry: Any) -> str:
    """The name in one element of a jax tree path, whatever the kind of container."""
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def parameter_groups(params: Any) -> dict[str, list[tuple[int, ...]]]:
    """Return the shapes of the arrays under each pair of first path elements of a parameter tree.

    A sole outer ``params`` collection is left out of the paths.
    """
    import jax

    if isinstance(params, Mapping) and set(params) == {"params"}:
        params = params["params"]
    groups: dict[str, list[tuple[int, ...]]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(_key_name(entry) for entry in path[:2])
        groups.setdefault(name, []).append(tuple(leaf.shape))
    return groups


def _stacked(shapes: Sequence[tuple[int, ...]]) -> int | None:
    """Return the leading size that all arrays share when it looks like scanned layers, else None.

    A plain layer has a vector (bias, scale) or differing leading sizes; a stack has neither.
    """
    leading = {shape[0] if len(shape) > 1 else None for shape in shapes}
    return leading.pop() if len(shapes) > 1 and len(leading) == 1 else None


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    """Name the shapes, each once and at most three."""
    distinct = list(dict.fromkeys("x".join(map(str, shape)) or "scalar" for shape in shapes))
    return ", ".join(distinct[:3]) + (", ..." if len(distinct) > 3 else "")


def model_summary(params: Any, console: Console) -> int:
    """Print the parameter count of each group and the total; return the total."""
    table = Table(title="Parameters", title_justify="left")
    table.add_column("group")
    table.add_column("arrays", justify="right")
    table.add_column("shapes")
    table.add_column("parameters", justify="right", no_wrap=True)
    total = arrays = 0
    for name, shapes in parameter_groups(params).items():
        count, layers = sum(map(math.prod, shapes)), _stacked(shapes)
        total, arrays = total + count, arrays + len(shapes)
        note = f"{_shapes(shapes)} ({layers} stacked layers)" if layers else _shapes(shapes)
        table.add_row(Text(name), str(len(shapes)), note, f"{count:,}")
    table.add_section()
    table.add_row("total", str(arrays), "", f"{total:,}")
    console.print(table)
    return total


def format_score(value: float | None) -> str:
    """Format a score in four decimals; ``-`` where there is none (null in JSON, or NaN)."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def result_table(report: Mapping[str, Any], console: Console) -> None:
    """Print the score of each seed, mean and sd, trivial baselines, and where the files are.

    Args:
      report: ``seeds``, a list of scores (see ``reporting.metrics.score``), each with its ``seed``;
        and, optional, ``title``, ``summary`` (of ``summarize_seeds``; computed when absent),
        ``baselines`` (a rule's name to its accuracy or scores, majority class among them) and ``files``
        (what a file holds to its path).
      console: where to print.
    """
    table = Table(title=Text(str(report.get("title", "Result"))), title_justify="left")
    table.add_column("")
    names = headlines(report["seeds"])
    for name in names:
        table.add_column(LABELS[name], justify="right", no_wrap=True)
    for each in report["seeds"]:
        table.add_row(f"seed {each['seed']}", *(format_score(each[name]) for name in names))
    if len(report["seeds"]) > 1:  # the spread of one seed would say 0 where it is not known
        _add_summary(table, report, "+/- sd" if console.options.ascii_only else "± sd")
    table.add_section()
    for rule, found in report.get("baselines", {}).items():
        every = found if isinstance(found, Mapping) else {"accuracy": found}
        cells = [format_score(every[name]) if name in every else "" for name in names]
        table.add_row(Text(rule), *cells)
    console.print(table)
    _print_files(report.get("files", {}), console)


def _add_summary(table: Table, report: Mapping[str, Any], spread: str) -> None:
    """Add mean and sample standard deviation, in two rows: side by side they are too wide."""
    summary = report.get("summary") or summarize_seeds(report["seeds"])
    table.add_section()
    for label, key in (("mean", "mean"), (spread, "sd")):
        table.add_row(label, *(format_score(values[key]) for values in summary.values()))


def _print_files(files: Mapping[str, Any], console: Console) -> None:
    """Print a path a line, whole whatever the width, so that it can be copied."""
    width = max(map(len, files), default=0)
    for what, path in files.items():
        line = f"{what:<{width}}  {path}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def phases_table(seconds: Mapping[str, float], about: Mapping[str, str], console: Console) -> None:
    """Print where the time of a run's sitting went.

    Args:
      seconds: by phase; their sum is the whole.
      about: what each phase is.
      console: where to print.
    """
    total = sum(seconds.values())
    table = Table(title="Time of this sitting", title_justify="left")
    for name, justify in (("phase", "left"), ("seconds", "right"), ("%", "right"), ("", "left")):
        table.add_column(name, justify=justify, no_wrap=bool(name))  # type: ignore[arg-type]
    for name, value in seconds.items():
        share = f"{100 * value / total:.1f}" if total else "-"
        table.add_row(name, f"{value:.1f}", share, Text(about[name]))
    table.add_section()
    table.add_row("total", f"{total:.1f}", "100.0", "")
    console.print(table)


def per_class_table(score: Mapping[str, Any], console: Console) -> None:
    """Print precision, recall, F1 and support of each class of one result of ``score``."""
    table = Table(title="Per class", title_justify="left")
    table.add_column("class")
    for name in ("precision", "recall", "F1", "support"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in score["per_class"]:
        cells = [format_score(row[name]) for name in ("precision", "recall", "f1")]
        table.add_row(Text(row["class"]), *cells, str(row["support"]))
    table.add_section()
    support = sum(row["support"] for row in score["per_class"])
    table.add_row("macro F1", "", "", format_score(score["macro_f1"]), str(support))
    console.print(table)
