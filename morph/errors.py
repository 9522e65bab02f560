"""Everything that a person can mend, and optional packages that are missing."""

from __future__ import annotations

from regularizers.errors import MorphError


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and left a checkpoint."""


class ConfigError(MorphError, ValueError):
    """Settings that make no sense, or that this network cannot follow."""


class ImportedError(MorphError, ImportError):
    """A name of somebody's own module, file or attribute that cannot be imported."""


class StartError(MorphError, ValueError):
    """Weights to start from that cannot be read, or that do not fit the network."""


class DataError(MorphError, ValueError):
    """Data that nothing can be learned from."""


class BudgetError(MorphError, ValueError):
    """A budget that no widths can meet."""


class BudgetWarning(UserWarning):
    """What a budget leaves is not what was trained."""


class WorkdirError(MorphError, RuntimeError):
    """A working directory that belongs to another run or cannot be used."""


class MeshError(MorphError, RuntimeError):
    """Devices or processes that cannot work together as asked."""


class PeerError(MeshError):
    """Another process of this run failed, or is gone."""


class LostError(PeerError):
    """Another process of this run is gone: start all of them again."""


class NativeError(MorphError, ValueError):
    """The model's own code cannot run at the widths of an architecture."""


class NativeNumbersWarning(UserWarning):
    """A native model computes numbers from its widths that `morph.compact` keeps."""


class LossyPlanWarning(UserWarning):
    """A plan to factorize kernels that loses much of some of them."""


class ArchitectureError(MorphError, ValueError):
    """A file that is not an architecture, or an architecture that does not fit."""


class TrainingDivergedError(MorphError, FloatingPointError):
    """The loss is not a number any more."""


class ContainerError(MorphError, ValueError):
    """The bytes are not those of a network that this version can read."""


class ExportError(MorphError, ValueError):
    """A network that a target cannot run, or data that do not fit it."""


class MissingExtraError(MorphError, ModuleNotFoundError):
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
