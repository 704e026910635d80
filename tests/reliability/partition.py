"""A network cut between the two processes of a run, for good or for a while.

Each process stands in a network of its own; a bridge joins them, and a cut takes one off the bridge:
packets are lost, and nobody is told. It needs Linux with `unshare`, `nsenter` and `ip`, and the right
to make namespaces. ``python tests/reliability/table.py --only=partition``.
"""

import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from reliability import processes, runs

HOST = "10.77.0.{}"
MOMENTS = 6
FOR_A_WHILE = processes.PEER_TIMEOUT / 2  # TCP sends again after at most twice the time of a cut
SETUP = """
set -e
mount -t tmpfs none /run
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
for i in 0 1; do
  ip netns add p$i
  ip link add v$i type veth peer name eth0 netns p$i
  ip link set v$i master br0 up
  ip -n p$i addr add 10.77.0.$((i + 1))/24 dev eth0
  ip -n p$i link set eth0 up
  ip -n p$i link set lo up
  echo "127.0.0.1 localhost" > /run/hosts$i
  echo "10.77.0.$((i + 1)) $(hostname)" >> /run/hosts$i
done
"""


class NotPossibleError(RuntimeError):
    """This machine makes no networks of our own."""


class Network:
    """Two hosts and what joins them; use as a context manager.

    Raises:
      NotPossibleError: this machine does not allow it.
    """

    def __enter__(self) -> "Network":
        for name in ("unshare", "nsenter", "ip"):
            if shutil.which(name) is None:
                raise NotPossibleError(f"there is no {name} here")
        self._holder = subprocess.Popen(  # it ends with this process
            ["unshare", "-Urnm", "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._holder.stdout.readline()
        made = self._do("sh", "-c", SETUP)
        if made.returncode:
            self.__exit__()
            raise NotPossibleError(f"no networks of our own here: {made.stderr.strip()[-300:]}")
        return self

    def __exit__(self, *error: object) -> None:
        self._holder.kill()
        self._holder.wait()

    def within(self, index: int) -> list[str]:
        """Return what a command on one of the hosts starts with; its process stays the same."""
        own = f'mount --bind /run/hosts{index} /etc/hosts && exec "$@"'
        return [*self._enter(), "ip", "netns", "exec", f"p{index}", "sh", "-c", own, "sh"]

    def cut(self, index: int) -> None:
        """Lose all that one of the hosts sends, or is sent."""
        self._do("ip", "link", "set", f"v{index}", "nomaster")

    def mend(self, index: int) -> None:
        """Join it again."""
        self._do("ip", "link", "set", f"v{index}", "master", "br0")

    def _enter(self) -> list[str]:
        return ["nsenter", "-t", str(self._holder.pid), "-U", "-n", "-m", "--preserve-credentials"]

    def _do(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*self._enter(), *command], capture_output=True, text=True, check=False
        )


def disturbed(network: Network, workdir: Path, moment: float, seconds: float) -> dict[str, Any]:
    """Cut a run in two after ``moment`` seconds, for some seconds; return what came of it."""
    group = processes.start("plain", workdir, 2, 2, host=HOST.format(1), within=network.within)
    group.wait(moment)
    network.cut(1)
    began = time.monotonic()
    ended = group.wait(min(seconds, processes.LIMIT))
    waited = time.monotonic() - began
    network.mend(1)
    if seconds < processes.LIMIT:
        ended = group.wait(processes.LONG)
    said = [group.text(index) for index in range(2)]
    group.end()
    return {
        "moment": round(moment, 1),
        "cut": round(min(waited, seconds), 1),
        "statuses": ended,
        "named": [f"process {1 - index}" in text for index, text in enumerate(said)],
    }


def outcome(found: dict[str, Any], differ: list[str], for_good: bool) -> str:
    """Say in a word how it went."""
    if None in found["statuses"]:
        return "hung"
    if not for_good and any(found["statuses"]):
        return f"not gone on: {found['statuses']}"
    for status, named in zip(found["statuses"], found["named"], strict=True):
        if status and not (status in processes.ENDS and named):
            return f"status {status}, named: {named}"
    return "equal" if not differ else "differs"


def measure(quick: bool, seed: int, each, keep=lambda name, make: make()) -> dict[str, Any]:
    """Cut for good and for a while at three random moments each (at one each if quick)."""
    try:
        with Network() as network:
            return _measured(network, quick, seed, each, keep)
    except NotPossibleError as why:
        return {"outcomes": {"not possible here": 1}, "why": str(why)}


def _measured(network: Network, quick: bool, seed: int, each, keep) -> dict[str, Any]:
    rand, folder = random.Random(seed), Path(tempfile.mkdtemp(prefix="resnorm-partition-"))
    shares = [rand.uniform(0.4, 1.0) for _ in range(MOMENTS)][: 2 if quick else None]
    found = []
    where = {"host": HOST.format(1), "within": network.within}
    one = processes.run("plain", folder / "undisturbed", 2, 2, **where)
    began = time.monotonic()
    processes.run("plain", folder / "again", 2, 2, **where)
    whole = time.monotonic() - began
    for number in each(range(len(shares)), "cuts"):
        place, for_good = folder / f"run_{number}", number % 2 == 0

        def tried(place=place, for_good=for_good, share=shares[number]) -> dict[str, Any]:
            seconds = float(processes.LIMIT if for_good else FOR_A_WHILE)
            told = disturbed(network, place, share * whole, seconds)
            differ = runs.differences(one, processes.run("plain", place, 2, 2, **where))
            return told | {"differ": differ, "outcome": outcome(told, differ, for_good)}

        found.append(keep(f"cut {number}", tried))
    shutil.rmtree(folder)
    return {
        "outcomes": dict(Counter(each_["outcome"] for each_ in found)),
        "peer_timeout": processes.PEER_TIMEOUT,
        "cases": found,
    }
