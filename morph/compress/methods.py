"""From a trained network to one of fewer bits, stage by stage, by name.

Each method is a generator: it trains, and tells every network on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import optax

from morph.compress.cluster import shared
from morph.compress.config import CompressConfig
from morph.compress.fixed_point import FixedPoint
from morph.compress.fixed_point_closest import closest
from morph.compress.pruning import finished, gradual, pruned
from morph.compress.ternary import Ternary, ternarized
from morph.compress.training import evaluated, train
from morph.errors import ConfigError
from morph.kernels.compressed import Pruned, is_compressed
from morph.network import NETWORK, VARIABLES, Network, Variables
from morph.training.data import DATA, Batch, Pipeline, first_of
from morph.training.losses import responses, soft_labels
from morph.training.optimizers import make_optimizer, rate_schedule
from morph.training.task import TASK, Task
from regularizers.channels.calls import joined_path
from regularizers.channels.trace import trace_channels
from regularizers.checks import a, checked
from regularizers.patterns import parse

CALIBRATION = 256  # examples that fixed-point formats are chosen by
PRUNINGS = 20  # pruning steps, over the first half of a stage


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A network on the way.

    Attributes:
        name: what was done to it.
        variables: its variables, with compressed values.
        predict: `(variables, x) -> outputs`.
        facts: what else is worth telling, as JSON.
    """

    name: str
    variables: Variables
    predict: Callable[[Any, Any], Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What compressed networks are trained on, and what for.

    Attributes:
        data: the training set, whole, or a pipeline of batches.
        task: what is minimised; cross-entropy if it names no loss.
    """

    data: Batch | Pipeline
    task: Task = field(default_factory=Task)

    def sample(self, examples: int) -> Any:
        """The inputs of the first examples, of one batch at most where they come in batches."""
        return first_of(self.data, "training pipeline").rows(slice(0, examples)).x


Method: TypeAlias = Callable[[Network, Variables, Lesson, CompressConfig], Iterator[Stage]]


@checked(
    network=NETWORK,
    variables=VARIABLES,
    data=DATA,
    config=a(CompressConfig, "a morph.compress.CompressConfig"),
    task=TASK,
)
def compressed(
    network: Network,
    variables: Variables,
    data: Batch | Pipeline,
    config: CompressConfig,
    task: Task | None = None,
) -> Iterator[Stage]:
    """The stages of the method that a configuration names; the last one's variables can be packed.

    Args:
        network: of the variables, at their widths.
        variables: trained; kernels may be factorized.
        data: the training set, whole, or a pipeline of batches.
        config: the method and its settings.
        task: what is minimised; cross-entropy if it names no loss.

    Raises:
        ConfigError: if settings do not fit the network. TrainingDivergedError.
    """
    try:
        lesson = Lesson(data=data, task=task or Task())
        yield from METHODS[config.compress](network, variables, lesson, config)
    except ValueError as error:
        raise ConfigError(f"--compress={config.compress}: {error}") from error


def _trained(
    network: Network,
    variables: Variables,
    lesson: Lesson,
    config: CompressConfig,
    share: float,
    wrap: Callable[[Any, int], Any] = lambda optimizer, steps: optimizer,
) -> tuple[Variables, optax.OptState]:
    """After a share of all training steps."""
    steps = max(1, round(share * config.compress_steps))
    optimizer = make_optimizer(
        config.compress_optimizer,
        rate_schedule(config.compress_learning_rate, steps),
        weight_decay=0.0,
    )
    return train(
        network,
        variables,
        lesson.data,
        wrap(optimizer, steps),
        steps=steps,
        batch_size=config.compress_batch_size,
        seed=config.compress_seed,
        task=lesson.task,
    )


def _pruned(
    network: Network,
    variables: Variables,
    lesson: Lesson,
    config: CompressConfig,
    share: float = 1.0,
) -> Iterator[Stage]:
    """Gradual magnitude pruning over the first half of the steps, then retraining."""

    def wrap(optimizer: Any, steps: int) -> Any:
        half = max(1, steps // 2)
        every = max(1, half // PRUNINGS)
        schedule = gradual(config.sparsity, start=0, end=half, every=every)
        return pruned(optimizer, schedule, config.distribution)

    variables, state = _trained(network, variables, lesson, config, share, wrap)
    variables = {**variables, "params": finished(variables["params"], state)}
    yield Stage(name="pruned", variables=variables, predict=evaluated(network).predict)


def _deep(
    network: Network, variables: Variables, lesson: Lesson, config: CompressConfig
) -> Iterator[Stage]:
    """Deep Compression: prune, share weights, retrain what is shared (Han et al. 2016)."""
    (stage,) = _pruned(network, variables, lesson, config, 0.7)
    yield stage
    params = stage.variables["params"]
    if config.clusters.isdecimal():
        clusters = {path: int(config.clusters) for path in _kernels(params)}
    else:
        clusters = parse(config.clusters, "clusters", int)
    params = shared(params, clusters, method=config.clustering)
    variables = {**stage.variables, "params": params}
    yield Stage(name="shared", variables=variables, predict=stage.predict)
    variables, _ = _trained(network, variables, lesson, config, 0.3)
    yield Stage(name="shared, retrained", variables=variables, predict=stage.predict)


def _kernels(params: Any) -> list[str]:
    """The paths of what was pruned."""
    entries, _ = jax.tree_util.tree_flatten_with_path(
        params, is_leaf=lambda leaf: isinstance(leaf, Pruned)
    )
    return [joined_path(path) for path, leaf in entries if isinstance(leaf, Pruned)]


def _fixed(
    network: Network, variables: Variables, lesson: Lesson, config: CompressConfig
) -> Iterator[Stage]:
    """Dynamic fixed point (Qiu et al. 2016), and training with the rounding in place.

    An equalized network is the same in evaluation mode only, so it is trained in it, with its batch
    norms' statistics as they are.
    """
    network = evaluated(network)
    sample = lesson.sample(CALIBRATION)
    graph = trace_channels(network.predict, variables, sample)
    task = lesson.task
    plan, own, equal = closest(
        network.predict,
        graph,
        variables,
        sample,
        word_length=config.word_length,
        distance=task.distill or (soft_labels if task.loss is None else responses),
    )
    predict, facts = plan.simulated(network.predict), {"fixed_point": plan.to_json()}
    values = plan.apply(own)
    yield Stage(name="fixed point", variables=_frozen(values), predict=predict, facts=facts)

    def in_evaluation_mode(variables: Variables, x: Any, key: Any) -> tuple[Any, Variables]:
        del key
        return network.predict(variables, x), {}

    forward = in_evaluation_mode if equal else network.forward
    rounding = Network(
        init=network.init,
        predict=network.predict,
        forward=plan.simulated(forward, exact=False),
    )
    values, _ = _trained(rounding, values, lesson, config, 1.0)
    yield Stage(
        name="fixed point, retrained", variables=_frozen(values), predict=predict, facts=facts
    )


def _ternary(
    network: Network, variables: Variables, lesson: Lesson, config: CompressConfig
) -> Iterator[Stage]:
    """Trained ternary quantization (Zhu et al. 2017), from the trained weights."""
    predict = evaluated(network).predict
    graph = trace_channels(predict, variables, lesson.sample(1))
    keep = [name for name in config.keep.split(",") if name]
    values = ternarized(graph, variables, keep=keep, threshold=config.threshold)
    yield Stage(name="ternary", variables=_frozen(values), predict=predict)
    values, _ = _trained(network, values, lesson, config, 1.0)
    yield Stage(name="ternary, retrained", variables=_frozen(values), predict=predict)


def _frozen(values: Variables) -> Variables:
    """Without what only training needs."""
    return jax.tree.map(
        lambda leaf: leaf.frozen() if isinstance(leaf, FixedPoint | Ternary) else leaf,
        values,
        is_leaf=is_compressed,
    )


METHODS: Mapping[str, Method] = {
    "deep": _deep,
    "fixed": _fixed,
    "prune": _pruned,
    "ternary": _ternary,
}
