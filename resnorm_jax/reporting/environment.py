"""Where numbers were measured: date, device, versions, and how busy the processor is."""

import importlib.metadata
import os
from datetime import UTC, datetime
from typing import Any

import jax


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Return date, device and versions."""
    devices = jax.devices()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "device_count": len(devices),
        "cores": cores(),
        "load_average": _load_average(),
        "versions": {name: _version(name) for name in ("jax", "jaxlib", "flax", "torch")},
    }


def busy_note() -> str | None:
    """Return a warning if other programs keep the processor busy, else None."""
    load, count = _load_average(), cores()
    if load is None or load < 0.5 * count:
        return None
    return (
        f"note: load {load:.1f} on {count} cores: other programs are running, so times (torch's "
        "most of all, whose threads wait for each other) are not to be trusted"
    )


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
