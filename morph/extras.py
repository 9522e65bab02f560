"""Optional packages: missed only where they are used, in one line that says what to install."""

from __future__ import annotations


class MissingExtraError(ModuleNotFoundError):
    """A package that is not installed, and how to install it."""


def need(what: str, missing: ModuleNotFoundError | None, extra: str) -> None:
    """Raises if the packages of an extra are not installed.

    Args:
        what: that needs them, for the message.
        missing: what importing them raised; None if they are there.
        extra: its name.

    Raises:
        MissingExtraError: with the command that installs them.
    """
    if missing is not None:
        raise MissingExtraError(
            f"{what} needs packages that are not installed ({missing}): "
            f"pip install 'morph-jax[{extra}]'"
        ) from missing
