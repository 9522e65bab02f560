"""What goes wrong when a network is written for elsewhere."""

from __future__ import annotations

INSTALL = "pip install 'morph-jax[export]'"


class ExportError(ValueError):
    """A network that a target cannot run, data that do not fit it, or a package that is missing."""


def need(what: str, missing: ModuleNotFoundError | None) -> None:
    """Raises if the packages of a target are not installed.

    Args:
        what: the target, for the message.
        missing: what importing them raised; None if they are there.

    Raises:
        ExportError: with the command that installs them.
    """
    if missing is not None:
        raise ExportError(
            f"{what} needs packages that are not installed ({missing}): {INSTALL}"
        ) from missing
