"""Eight fake CPU devices, compiled programs shared between processes, and tiers of tests."""

import hashlib
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

os.environ["JAX_PLATFORMS"] = os.environ.get("RESNORM_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
cache = Path(tempfile.gettempdir()) / f"resnorm_jax-test-cache-{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

TIERS = ("table", "slow")  # beside what is run by default; see tiers.py
NO_TIME = "no time left for this tier"
START = time.monotonic()
left_out = Counter()  # tests by tier


def tier_of(item) -> str:
    """The tier of a test; empty for what is run by default."""
    return next((tier for tier in reversed(TIERS) if item.get_closest_marker(tier)), "")


def pytest_configure(config):
    """Compile in less time where no full matrix was asked for; the other tiers see the usual code.

    The package's doctests are of the table: looking for them imports all of it.
    """
    if "not table" in config.option.markexpr:
        os.environ["XLA_FLAGS"] += (
            " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        )
    elif config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        config.option.doctestmodules = True
        config.args.append("resnorm_jax")


def pytest_addoption(parser):
    parser.addoption(
        "--seconds",
        type=float,
        metavar="S",
        help="start no test of the tiers table and slow later than this",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Doctests are of the table; with --seconds default tests are first, slow ones last.

    The table's are then in a fixed mixed order, so that those that fit are of all kinds.
    """
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.table)

    def place(item):
        tier = tier_of(item)
        mixed = hashlib.md5(item.nodeid.encode()).digest() if tier == "table" else b""
        return ("", *TIERS).index(tier), mixed

    if config.option.seconds is not None:
        items.sort(key=place)


def pytest_deselected(items):
    left_out.update(tier_of(item) for item in items)


def pytest_runtest_setup(item):
    seconds = item.config.option.seconds
    if seconds is not None and tier_of(item) and time.monotonic() - START > seconds:
        pytest.skip(NO_TIME)


def pytest_sessionfinish(session):
    """A worker tells the process that prints; all workers have the same tests."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    left_out.update(Counter(getattr(node, "workeroutput", {}).get("left_out", {})) - left_out)


def pytest_terminal_summary(terminalreporter):
    """What was not run, and the command that runs it."""
    for tier in TIERS:
        if left_out[tier]:
            more = " and the doctests" if tier == "table" else ""
            terminalreporter.write_line(
                f"left out: {left_out[tier]} tests{more}; run: pytest -m {tier}"
            )
    skipped = terminalreporter.stats.get("skipped", [])
    late = sum(NO_TIME in str(report.longrepr) for report in skipped)
    if terminalreporter.config.option.seconds is not None:
        ran = sum(len(terminalreporter.stats.get(k, [])) for k in ("passed", "failed"))
        terminalreporter.write_line(f"in the time given: {ran} tests run, {late} not started")


def pytest_runtest_teardown(item, nextitem):
    """Forget compiled programs before they are too many.

    Each holds some of the memory maps that a process may have (65,530 by Linux' default); with some
    thousands of them a worker ends in a segmentation fault.
    """
    import gc

    import jax

    if nextitem is not None and _memory_maps() > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


MOST_MAPS = 20_000


def _memory_maps() -> int:
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0
