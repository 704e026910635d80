"""Which norm kernels a program calls that was lowered for a GPU."""

import re


def kernels(text):
    """How often each kernel is called, with the calls of functions; a loop's body counts once."""
    parts = re.split(r"func\.func \w+ @(\w+)", text)[1:]
    bodies = dict(zip(parts[::2], parts[1::2], strict=True))

    def count(function, pattern):
        called = re.findall(r" (?:func\.)?call @(\w+)\(", bodies[function])
        return len(re.findall(pattern, bodies[function])) + sum(count(f, pattern) for f in called)

    return [count("main", rf'name = "norm_{name}"') for name in ("forward", "backward")]
