"""What a command works on: the seed network and the data that its flags name.

Both are those of the registries (`--seed_network`, `--dataset`), or somebody's own (`--model`,
`--data`). `--data=package.module:function` names a function of no arguments, or of `data_dir`,
which returns the training and the test set, `(train, test)`. Each is `(x, y)`, or `morph.Batch(x,
y)`, whole: arrays, or trees of them, of which the first axis are examples. Instead, `train` may be
a pipeline, with `batches(start)`, an endless iterator of batches from a step on; and `test` a list
of batches, or any object that gives them each time that it is iterated over.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from absl import flags
from flax import nnx

from experiments import datasets
from experiments.models import network_for
from experiments.networks import SEED_NETWORKS
from morph.cycle.stamp import stamp_of
from morph.errors import ConfigError, DataError
from morph.imports import find_attribute, is_path
from morph.network import Network, linen_network, nnx_network
from morph.training.data import Batch, Pipeline, first_of
from regularizers.errors import MorphError
from regularizers.messages import cause

PROTOCOL = (
    "a function that returns (train, test), each (x, y) or morph.Batch(x, y), train instead a "
    "pipeline with batches(start), test instead what gives its batches when it is iterated over"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """What is trained and tested on.

    Attributes:
        name: of the registry, or the path of the function that made it.
        train: a whole set, or a pipeline.
        test: a whole set, or what gives its batches.
        fingerprint: of the content; of a stream of its first batch.
        num_classes: labels are in [0, num_classes); None if they are no numbers of classes.
    """

    name: str
    train: Batch | Pipeline
    test: Batch | Iterable[Batch]
    fingerprint: str
    num_classes: int | None

    @property
    def x(self) -> Any:
        """The inputs of one example."""
        return first_of(self.train, "training pipeline").rows(slice(0, 1)).x

    def whole(self, command: str) -> Batch:
        """The training set.

        Raises:
            ConfigError: if it is a pipeline.
        """
        if isinstance(self.train, Batch):
            return self.train
        raise ConfigError(
            f"{command} trains runs side by side on one whole set; --data={self.name} gives a "
            "pipeline: let it return a morph.Batch"
        )


def data_of(options: flags.FlagValues, report: Mapping[str, Any]) -> Data:
    """The data that flags name, or else a report.

    Raises:
        ConfigError: if nothing names them, or only a report does, and they are code to run.
    """
    if options["data"].value is not None:
        if options["dataset"].present:
            raise ConfigError("--data and --dataset both name the data; give one of them")
        return _own_data(options["data"].value, options["data_dir"].value)
    name = fact("dataset", report, options, None)
    if is_path(name):
        raise ConfigError(
            f"the architecture's data are {name!r}, code to run; to run it give --data={name}"
        )
    data = datasets.load(name, options["data_dir"].value)
    return Data(
        name=data.name,
        train=Batch(data.train_images, data.train_labels),
        test=Batch(data.test_images, data.test_labels),
        fingerprint=data.fingerprint,
        num_classes=data.num_classes,
    )


def _own_data(target: str, data_dir: str | None) -> Data:
    """What a function of somebody's own returns."""
    function = find_attribute(target, "data")
    if not callable(function):
        raise ConfigError(f"--data={target} is a {type(function).__name__}; it must be {PROTOCOL}")
    try:
        takes = "data_dir" in inspect.signature(function).parameters
        made = function(data_dir=data_dir) if takes else function()
    except MorphError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise DataError(f"--data={target} fails with {cause(error)}") from error
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise DataError(f"--data={target} returns a {type(made).__name__}; it must be {PROTOCOL}")
    train, test = map(_as_set, made)
    if not isinstance(train, Batch | Pipeline):
        raise DataError(
            f"--data={target} returns a {type(train).__name__} to train on; it must be {PROTOCOL}"
        )
    first = first_of(train, "training pipeline"), first_of(test, "test set")
    return Data(
        name=target,
        train=train,
        test=test,
        fingerprint=stamp_of([jax.tree.leaves(one) for one in first]),
        num_classes=_classes(first[0].y),
    )


def _as_set(made: Any) -> Any:
    """A pair of inputs and labels as a batch."""
    if isinstance(made, tuple) and not isinstance(made, Batch) and len(made) == 2:
        return Batch(*made)
    return made


def _classes(y: Any) -> int | None:
    """How many classes labels tell apart, if they are numbers of classes."""
    leaves = jax.tree.leaves(y)
    if len(leaves) != 1 or not np.issubdtype(leaves[0].dtype, np.integer):
        return None
    return int(np.max(leaves[0])) + 1


def seed_of(
    report: Mapping[str, Any], options: flags.FlagValues, data: Data
) -> tuple[Network, str]:
    """The seed network and its name, from the flags or the architecture's report.

    Raises:
        ConfigError: if nothing names it, or it is no model.
    """
    if options["model"].value is not None:
        if options["seed_network"].present:
            raise ConfigError("--model and --seed_network both name the seed; give one of them")
        return _own_network(options["model"].value, options["train_kwarg"].value)
    name = fact("seed_network", report, options, None)
    if is_path(name):
        raise ConfigError(
            f"the architecture's seed network is {name!r}, code to run; to run it give "
            f"--model={name}"
        )
    if name not in SEED_NETWORKS:
        raise ConfigError(
            f"the architecture's seed network {name!r} is not in the registry; name it with "
            "--model=package.module:attribute"
        )
    shape = np.shape(data.x)[1:] if jax.tree_util.all_leaves([data.x]) else ()
    if len(shape) != 3 or data.num_classes is None:
        raise ConfigError(
            f"--seed_network={name} takes images [n, height, width, channels] and tells classes "
            f"apart; --data={data.name} has inputs {jax.tree.map(np.shape, data.x)}"
            + ("" if data.num_classes else " and labels that are no classes")
            + ": name a network with --model"
        )
    width = fact("width", report, options, 1.0)
    return network_for(name, shape, data.num_classes, width), name


def _own_network(target: str, train_kwarg: str | None) -> tuple[Network, str]:
    """The network that a path names."""
    model = find_attribute(target)
    if inspect.isclass(model) and issubclass(model, nn.Module):
        try:
            model = model()
        except TypeError as error:
            raise ConfigError(
                f"--model={target} cannot be built without arguments: {cause(error)}; name an "
                "instance"
            ) from error
    if isinstance(model, Network):
        return model, target
    if isinstance(model, nn.Module):
        kwarg = train_kwarg or None
        accepted = inspect.signature(type(model).__call__).parameters
        return linen_network(model, train_kwarg=kwarg if kwarg in accepted else None), target
    if callable(model) and not isinstance(model, nnx.Module):
        return nnx_network(lambda rngs: model(rngs=rngs)), target
    raise ConfigError(
        f"--model={target} is a {type(model).__name__}; it must name a Linen module or its "
        "class, a morph.Network, or a function of `rngs` that makes an NNX module"
    )


def fact(name: str, report: Mapping[str, Any], options: flags.FlagValues, default: Any) -> Any:
    """What a flag says, or else the report of the architecture.

    Raises:
        ConfigError: if neither does, and there is no default.
    """
    value = options[name].value
    found = report.get(name, default) if value is None else value
    if found is None:
        raise ConfigError(f"the architecture's report names no {name}; give --{name}")
    return found


def identity_of(name: str, data: Data, width: float | None) -> dict[str, Any]:
    """What tells the work on a network and its data from others."""
    return {
        "seed_network": name,
        "width": 1.0 if width is None else width,
        "dataset": data.name,
        "data_fingerprint": data.fingerprint,
    }


def slug(name: str) -> str:
    """A name for a directory.

    Example:
        >>> slug("networks/unet.py:UNet"), slug("resnet8")
        ('unet-UNet', 'resnet8')
    """
    place, _, attribute = name.rpartition(":")
    stem = Path(place).stem if place.endswith(".py") else place
    return re.sub(r"[^\w.-]+", "-", f"{stem}-{attribute}" if stem else attribute)
