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
