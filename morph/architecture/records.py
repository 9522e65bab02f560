"""An architecture as JSON."""

from __future__ import annotations

import numpy as np


def is_dtype(name: str) -> bool:
    """Whether it names the type of an array; JAX's random keys have types of their own."""
    try:
        return name.startswith("key<") or np.dtype(name).name == name
    except (TypeError, ValueError, SyntaxError):
        return False
