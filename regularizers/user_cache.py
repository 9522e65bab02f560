"""Where Morph keeps what it found once: a folder in the user's cache, if there is one."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """`$XDG_CACHE_HOME/morph`, by default `~/.cache/morph`.

    Returns:
        The folder, which need not exist; None for a user without a home, as in some containers.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(named) if named else Path.home() / ".cache") / "morph"
    except RuntimeError:
        return None
