"""A process whose XLA takes long: ``python late.py SECONDS MODULES MARKER COMMAND ARGUMENTS...``.

Before the first compilation of each module that is named (``jit_a+jit_b``) its name goes into the file
``MARKER``, and so many seconds pass. ``COMMAND`` is Python's own, whose place this process takes.
"""

import runpy
import sys
import time
from pathlib import Path
from typing import Any

from jax._src import compiler


def main() -> None:
    """Have the modules compile late, then do what the command does."""
    seconds, modules, marker = float(sys.argv[1]), set(sys.argv[2].split("+")), Path(sys.argv[3])
    compiled = compiler.compile_or_get_cached

    def late(backend: Any, computation: Any, *more: Any, **how: Any) -> Any:
        name = computation.operation.attributes["sym_name"].value
        if name in modules:
            modules.remove(name)
            with marker.open("a") as file:
                file.write(f"{name}\n")
            time.sleep(seconds)
        return compiled(backend, computation, *more, **how)

    compiler.compile_or_get_cached = late
    sys.argv = sys.argv[5:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
