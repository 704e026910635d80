"""Three tiers of tests: what every run has, the full matrix (``-m table``), and ``-m slow``.

A test over a table is run by default for some of its rows; the others are of the tier ``table``.
Which ones, the table's own data say: rows that show between them each thing that a row can have.
"""

from collections.abc import Callable, Hashable, Iterable

import pytest

SLOTS = ("embedding_norm", "norm_before", "norm_after", "norm_on_stream", "final_norm")
SCALES = ("read_scale", "skip_scale", "branch_scale", "by_layer")
FUNCTIONS = ("open", "read", "write", "close")


def every(values: Iterable, default: Iterable = (), name: Callable = str) -> list:
    """All values as parameters; those that are not in ``default`` are of the tier ``table``."""
    kept = {name(value) for value in default}
    return [
        pytest.param(v, id=name(v), marks=() if name(v) in kept else pytest.mark.table)
        for v in values
    ]


def showing(rows: Iterable, traits: Callable[..., Iterable[Hashable]]) -> list:
    """Few rows, first ones first, that have between them every trait that any row has."""
    kept = [(row, set(traits(row))) for row in rows]
    for one in reversed(kept.copy()):
        if one[1] <= set().union(*(shown for row, shown in kept if row is not one[0])):
            kept.remove(one)
    return [row for row, _ in kept]


def stream_traits(row) -> set:
    """The functions of an arrangement's stream; those that one maker returns count once."""
    from resnorm_jax import streams

    stream = streams.get(row.stream)
    functions = {name: getattr(stream, name) for name in FUNCTIONS}
    functions = {name: getattr(f, "func", f) for name, f in functions.items()}  # of a partial
    names = {(k, f and f"{f.__module__}.{f.__qualname__}") for k, f in functions.items()}
    return names | {("scheduled", stream.scheduled)}


def inside_traits(row) -> set:
    """What stands inside its branches, their order, and what its stream carries and ends with."""
    plain = type(row)(name="plain", equation="", source="")
    inside = vars(row.inside).items() - vars(plain.inside).items()
    ends = {trait for trait in stream_traits(row) if trait[0] in ("open", "close")}
    return ends | {("order", row.order), *inside}


def scheme_traits(row) -> set:
    """Its stream's functions, its norm slots, what stands inside, and which scales it has."""
    plain = type(row)(name="plain", equation="", source="")
    return stream_traits(row) | {
        ("slots", tuple(slot for slot in SLOTS if getattr(row, slot) is not None)),
        ("at", str(row.by_sublayer)),
        ("order", row.order),
        *(("inside", f) for f in vars(row.inside).items() if f not in vars(plain.inside).items()),
        *(("scale", s) for s in SCALES if getattr(row, s) is not getattr(plain, s)),
    }


def schemes(traits: Callable = scheme_traits) -> list[str]:
    """Names of arrangements that have between them every trait."""
    from resnorm_jax import arrangements

    return [row.name for row in showing(arrangements.rows(), traits)]


def one_and_many() -> list[str]:
    """An arrangement that carries the stream alone, and one that carries more."""
    return schemes(lambda row: {dict(stream_traits(row))["open"].endswith("._open")})
