"""What can be named, from the same tables that the code runs on."""

import ast
from collections.abc import Callable, Iterable
from pathlib import Path

from resnorm_jax import arrangements, norms
from resnorm_jax.config_file import PACKAGED, packaged_configs
from resnorm_jax.data import SOURCES
from resnorm_jax.data.series import bundled_names
from resnorm_jax.errors import UserError
from resnorm_jax.interop.families import FAMILIES
from resnorm_jax.planning import PlannedNorm
from resnorm_jax.planning.parameters import PARAMS, norm_arrays
from resnorm_jax.schemes import STREAMS
from resnorm_jax.training.optimizers import ALGORITHMS, SCHEDULES

SERIES = "series"
Rows = list[tuple[str, ...]]


def _arrangements() -> tuple[tuple[str, ...], Rows]:
    rows: Rows = [
        (r.name + "".join(f"\n= {a}" for a in r.aliases), r.equation, r.source)
        for r in arrangements.rows()
    ]
    return ("arrangement", "equation", "source"), rows


def _streams() -> tuple[tuple[str, ...], Rows]:
    return ("stream", "write", "source"), [(r.name, r.equation, r.source) for r in STREAMS.rows()]


def _norms() -> tuple[tuple[str, ...], Rows]:
    rows: Rows = [
        (
            r.name + "".join(f"\n= {a}" for a in r.aliases),
            r.equation,
            "; ".join(filter(None, [norm_parameters(r), r.state and f"state: {r.state}"])),
            "" if r.epsilon is None else f"{r.epsilon:g}",
            r.source,
            r.used_by,
            r.since,
        )
        for r in norms.rows()
    ]
    return ("norm", "equation", "parameters", "epsilon", "source", "used by", "since"), rows


def norm_parameters(spec: norms.NormSpec) -> str:
    """Return a norm's parameters with their shapes, as its module makes them: ``"scale [D]"``.

    ``D`` is the width of ``x``, ``C`` that of the condition, for norms that are given one. A size
    that does not change with the width is shown as a number.
    """
    wide = _parameter_shapes(spec, 2 * _WIDTH)
    shown = []
    for name, shape in _parameter_shapes(spec, _WIDTH).items():
        sizes = [_size(*pair) for pair in zip(shape, wide[name], strict=True)]
        shown.append(f"{name} [{', '.join(sizes)}]" if sizes else f"{name} (scalar)")
    return ", ".join(sorted(shown, key=lambda text: text.startswith("bias")))


_WIDTH, _CONDITION = 192, 83  # a width that groups of the usual sizes divide


def _parameter_shapes(spec: norms.NormSpec, width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a norm's parameters by path; nothing is computed."""
    kept = norm_arrays(PlannedNorm("norm", spec), width, _CONDITION)
    return {path: shape for collection, path, shape in kept if collection == PARAMS}


def _size(size: int, at_twice_the_width: int) -> str:
    if size == at_twice_the_width:
        return "C" if size == _CONDITION else str(size)
    factor = size / _WIDTH
    if factor >= 1:
        return "D" if factor == 1 else f"{factor:g} D"
    return f"D / {1 / factor:g}"


def _data() -> tuple[tuple[str, ...], Rows]:
    rows: Rows = [
        (r.name, r.summary + _names(r.name), f"[{r.extra}]" if r.extra else "", r.citation)
        for r in SOURCES.values()
    ]
    return ("data source", "what", "extra", "source"), rows


def _names(source: str) -> str:
    if source != SERIES:
        return ""
    try:
        return ": " + ", ".join(bundled_names())
    except UserError:  # the extra is not installed
        return ""


def _families() -> tuple[tuple[str, ...], Rows]:
    rows: Rows = [
        (f.name, f.architecture, f.fixed["arrangement"], f.source.partition(";")[0])
        for f in FAMILIES.rows()
    ]
    return ("family", "class in transformers", "arrangement", "source"), rows


def _optimizers() -> tuple[tuple[str, ...], Rows]:
    rows: Rows = [
        (r.name, ", ".join(f"{k}={v:g}" for k, v in r.defaults.items()), r.source)
        for r in ALGORITHMS.values()
    ]
    return ("optimizer", "reads", "source"), [*rows, ("schedules", ", ".join(SCHEDULES), "")]


def _configs() -> tuple[tuple[str, ...], Rows]:
    own = [(name, PACKAGED / f"{name}.py") for name in packaged_configs()]
    here = [(f.as_posix(), f) for f in sorted(Path("configs").glob("*.py"))]
    theirs = [(told, f) for told, f in here if not (PACKAGED / f.name).exists()]
    return ("config", "what"), [(told, first_line(f)) for told, f in own + theirs]


def first_line(path: Path) -> str:
    """Return the first line of a file's docstring, without running the file; or why there is none."""
    try:
        text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"cannot be read: {type(error).__name__}"
    return text.partition("\n")[0]


TABLES: dict[str, Callable[[], tuple[tuple[str, ...], Rows]]] = {
    "arrangements": _arrangements,
    "streams": _streams,
    "norms": _norms,
    "data": _data,
    "families": _families,
    "optimizers": _optimizers,
    "configs": _configs,
}


NOT_IN_MARKDOWN = ("since",)


def markdown_table(what: str, names: Iterable[str] | None = None) -> str:
    """Return a table as Markdown, with the rows of these names, or all."""
    columns, rows = TABLES[what]()
    shown = [i for i, column in enumerate(columns) if column not in NOT_IN_MARKDOWN]
    wanted = None if names is None else set(names)
    lines = [" | ".join(columns[i] for i in shown), " | ".join("---" for _ in shown)]
    for first, *rest in ([row[i] for i in shown] for row in rows):
        if wanted is None or first.partition("\n")[0] in wanted:
            name = "`" + first.replace("\n= ", "`, `") + "`"
            lines.append(" | ".join([name, *(cell.replace("|", "\\|") for cell in rest)]))
    return "".join(f"| {line} |\n" for line in lines)
