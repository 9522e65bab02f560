"""This machine: its name, its versions, where its calibration is kept, and how busy it is."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import zlib
from importlib.metadata import version
from pathlib import Path

import jax

from regularizers.user_cache import user_cache


def cache_path(device: jax.Device | None = None, folder: str = "calibration") -> Path | None:
    """Where the calibration of a device is kept.

    `$XDG_CACHE_HOME/morph/calibration/<device>-<cores>-<versions>.json`, by default under
    `~/.cache`. Flags given to XLA get a file of their own.

    Args:
        device: JAX's default device if not given.
        folder: of the user's cache.

    Returns:
        The file, which need not exist; None if the user has no cache.
    """
    cache = user_cache()
    if cache is None:
        return None
    device = device or jax.local_devices()[0]
    words = [device_name(device), *(f"{name} {text}" for name, text in versions().items())]
    if flags := os.environ.get("XLA_FLAGS"):
        words.append(f"{zlib.crc32(flags.encode()):08x}")
    key = re.sub(r"[^a-z0-9.]+", "-", " ".join(words).lower()).strip("-")
    return cache / folder / f"{key}.json"


def device_name(device: jax.Device) -> str:
    """For people, and telling machines apart: model, and for a CPU its usable cores."""
    if device.platform != "cpu":
        return str(device.device_kind)
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
        model = found.group(1).strip() if found else model
    return f"{model}, {cores()} cores"


def versions() -> dict[str, str]:
    """Of what compiles and runs the kernels."""
    return {name: version(name) for name in ("jax", "jaxlib")}


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float:
    """How many processes ran in the last minute; 0 where nobody counts them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
