"""Which collectives a compiled program does in a step, how many bytes each, and what a link carries.

Sizes are those of XLA's text; a loop counts its body as often as it runs.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

# Of the full array of S bytes over n devices in a ring, the bytes that each device sends, and the
# steps one after another. Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for
# clusters of workstations" (2009), equations 1 and 2.
SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0 if n > 1 else 0.0,
}
HOPS = {
    "all-reduce": lambda n: 2 * (n - 1),
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: n - 1,
    "collective-permute": lambda n: min(1, n - 1),
}


@dataclass(frozen=True)
class Collective:
    """One collective of a step.

    Attributes:
      kind: a key of `SENT`.
      size: bytes of the full array: what is summed, what is gathered, or what is scattered.
      group: devices that take part.
      times: how often a step does it.
    """

    kind: str
    size: int
    group: int
    times: int = 1

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step."""
        return self.times * self.size * SENT[self.kind](self.group)

    def seconds(self, link: float, latency: float = 0.0) -> float:
        """Return the time of it on a link.

        $$ t = k (f(n) S / b + h(n) a) $$

        Args:
          link: bytes a second that a device sends, b.
          latency: seconds of each hop, a.
        """
        return self.sent / link + self.times * HOPS[self.kind](self.group) * latency


def collectives(text: str | None, devices: int) -> list[Collective]:
    """Return the collectives of a compiled program, from its text, in order.

    Args:
      text: of ``compiled.as_text()``, which may give None.
      devices: the group where the text names none.

    Raises:
      ValueError: if there is no entry computation.
    """
    bodies = _computations(text or "")
    if "" not in bodies:
        raise ValueError("no ENTRY in the program's text")
    return list(_of("", bodies, devices))


_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_OP = re.compile(rf" = (\S.*?) ({'|'.join(SENT)})(-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+[\da-z]*)\[([\d,]*)\]")
_CALLED = re.compile(r"(body|calls|to_apply|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_COMMENT = re.compile(r"/\*.*?\*/|metadata=\{[^}]*\}")


def _computations(text: str) -> dict[str, list[str]]:
    """Return the lines of each computation by its name; the entry's name is empty."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head is not None:
            lines = found.setdefault("" if head[1] else head[2], [])
        else:
            lines.append(_COMMENT.sub("", line))
    return found


def _of(name: str, bodies: Mapping[str, list[str]], devices: int) -> Iterator[Collective]:
    for line in bodies.get(name, ()):
        op = _OP.search(line)
        if op is not None:
            yield _collective(line, op, devices)
            continue
        trips = int(found[1]) if (found := _TRIPS.search(line)) else 1
        inside = [list(_of(n, bodies, devices)) for n in _called(line)]
        if " conditional(" in line:  # one branch is run: at most this one
            inside = [max(inside, key=lambda all_of: sum(c.sent for c in all_of), default=[])]
        for one in (c for all_of in inside for c in all_of):
            yield replace(one, times=one.times * trips)


def _called(line: str) -> list[str]:
    branches = _BRANCHES.search(line)
    names = [] if branches is None else re.findall(r"[\w.-]+", branches[1])
    return names + [match[2] for match in _CALLED.finditer(line)]


def _collective(line: str, op: re.Match[str], devices: int) -> Collective:
    shapes, kind, start = op.groups()
    group = _group(line, devices)
    sizes = [_bytes(*shape) for shape in _SHAPE.findall(shapes)]
    if start and kind in ("all-gather", "collective-permute"):  # what goes in stands there too
        sizes = sizes[len(sizes) // 2 :] if kind == "all-gather" else sizes[:1]
    size = sum(sizes) * (group if kind == "reduce-scatter" else 1)
    return Collective(kind, size, group)


def _group(line: str, devices: int) -> int:
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
    if listed is not None:
        return listed[1].count(",") + 1
    return devices if counted is None else int(counted[1])


def _bytes(dtype: str, dims: str) -> int:
    bits = re.search(r"\d+", dtype)  # pred has none: a byte
    item = 1 if bits is None else max(1, int(bits[0]) // 8)
    return item * math.prod(int(n) for n in dims.split(",") if n)
