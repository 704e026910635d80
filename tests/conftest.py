"""Eight fake CPU devices, and compiled programs shared between processes."""

import os
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("RESNORM_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
cache = Path(tempfile.gettempdir()) / f"resnorm_jax-test-cache-{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


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
