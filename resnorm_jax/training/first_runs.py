"""The first run of a program with collectives, which all processes of a run begin together."""

from typing import Any

import jax

from resnorm_jax.training.processes import Processes, current


class Together:
    """A function compiled by `jax.jit`, whose programs all processes begin together at their first run.

    A program's first collective connects its devices, for which Gloo waits 30 seconds for the other
    processes, whatever takes them longer: compiling, or the work before. So each process compiles, ends
    what the arguments wait for, and waits for the others in the coordination service, which has no
    such limit. `peers.Watch` ends who waits for a process that is gone. What is connected stays so, and
    later runs wait in the collective itself.

    Args:
      compiled: what `jax.jit` gave.
      name: of the program, alike in all processes.
      processes: of the run; they call this in the same order, with arguments of the same forms.
    """

    def __init__(self, compiled: Any, name: str, processes: Processes) -> None:
        self.lower = compiled.lower
        self._compiled, self._name, self._processes = compiled, name, processes
        self._met: set[Any] = set()

    def __call__(self, *arguments: Any) -> Any:
        """Return what the program makes of the arguments."""
        leaves, structure = jax.tree.flatten(arguments)
        form = structure, tuple(map(jax.typeof, leaves))
        if form not in self._met:
            self.lower(*arguments).compile()  # the call finds it compiled
            jax.block_until_ready(arguments)
            self._processes.barrier(f"run/{self._name}")
            self._met.add(form)
        return self._compiled(*arguments)


def begun_together(compiled: Any, name: str, several: bool) -> Any:
    """Return what `jax.jit` gave, as `Together` where its devices belong to several processes."""
    return Together(compiled, name, current()) if several else compiled
