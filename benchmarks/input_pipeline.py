"""What feeding data costs: a training step with its data over the same step without.

    python benchmarks/input_pipeline.py --out input_pipeline.json

The floor is one chunk of steps on a chunk that lies on the device. `resident` draws shuffled
indices into a set on the device; `python` is a pipeline in plain Python; `grain` a Grain loader, if
it is installed; both are stacked and sent by another thread while the device computes. Target: at
most 1.05. Ratios are medians over interleaved pairs, warm.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved, median_ratio, report

import morph
import regularizers as reg
from experiments import networks
from morph.training.data import Batch, chunks
from morph.training.optimizers import make_optimizer
from morph.training.step import TrainState, loops_well, make_step

try:
    import grain
except ModuleNotFoundError:  # it is optional
    grain = None

CHUNK = 10  # steps
SHAPE, CLASSES, EXAMPLES = (28, 28, 1), 10, 4096


class Python:
    """Batches by numpy indexing."""

    def __init__(self, data: Batch, size: int) -> None:
        self.data, self.size = data, size

    def batches(self, start: int) -> Iterator[Batch]:
        """Random ones."""
        for step in itertools.count(start):
            index = np.random.default_rng(step).integers(0, len(self.data.x), self.size)
            yield Batch(self.data.x[index], self.data.y[index])


class Grain:
    """Batches by Grain, one example at a time."""

    def __init__(self, data: Batch, size: int) -> None:
        examples = list(zip(data.x, data.y, strict=True))
        self.stream = grain.MapDataset.source(examples).seed(0).shuffle().repeat().batch(size)

    def batches(self, start: int) -> Iterator[Batch]:
        """Shuffled ones."""
        for step in itertools.count(start):
            yield Batch(*self.stream[step])


def trainer(
    network: Any, variables: Any, step: Any, data: Batch | None, stream: Iterator[Any]
) -> Callable[[], Any]:
    """A function that trains one chunk and keeps its state."""
    copied = jax.tree.map(jnp.copy, variables)
    held = [TrainState.of(network, copied, make_optimizer("momentum", 0.05))]
    key = jax.random.key(0, impl="rbg")

    def run() -> Any:
        held[0], losses = step(held[0], data, next(stream), key)
        return losses

    return run


def measure(name: str, batch: int, repeats: int) -> list[dict[str, Any]]:
    """One row per way of feeding."""
    model = networks.build(name, input_shape=SHAPE, num_classes=CLASSES)
    assert isinstance(model, nn.Module)
    network = morph.linen_network(model)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, *SHAPE)).astype(np.float32)
    data = Batch(x, rng.integers(0, CLASSES, EXAMPLES).astype(np.int32))
    resident = Batch(*map(jnp.asarray, data))
    variables = network.init(jax.random.key(1), resident.x[:1])
    graph = reg.trace_channels(network.predict, variables, resident.x[:1])
    step = make_step(looped=loops_well(graph))
    ends = [CHUNK * (i + 1) for i in range(repeats + 2)]
    index = np.arange(CHUNK * batch).reshape(CHUNK, batch) % EXAMPLES
    fixed = jax.device_put(Batch(x[index], data.y[index]))

    def fed(source: Any) -> Iterator[Any]:
        return chunks(source, batch, ends, start=0, seed=0)

    runs = {
        "floor": trainer(network, variables, step, None, itertools.repeat(fixed)),
        "resident": trainer(network, variables, step, resident, fed(data)),
        "python": trainer(network, variables, step, None, fed(Python(data, batch))),
    }
    if grain is not None:
        runs["grain"] = trainer(network, variables, step, None, fed(Grain(data, batch)))
    seconds = interleaved(runs, repeats)
    return [
        {
            "network": name,
            "data": how,
            "step_ms": 1e3 * statistics.median(seconds[how]) / CHUNK,
            "ratio": median_ratio(seconds[how], seconds["floor"]),
        }
        for how in runs
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=["mlp", "resnet8"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in flags.networks:
        rows += measure(name, flags.batch, flags.repeats)
    report(rows, flags.out)


if __name__ == "__main__":
    main()
