"""Networks in fixed point: 16, 8, 6 and 4 bits, dynamic precision against static.

    taskset -c 1 python benchmarks/fixed_point.py mnist mobilenet fashion \
        --out results/fixed_point.json

Each study can run alone; the file keeps the others. Data and weights as `.ci/fetch_data` installs
them. Weights, biases and all data that enter a product have the same word length; products are of
integers. Goal: at 8 bits at most 0.2 points lost, of 20 pictures none. "dynamic" is the paper's
search, "equalized" has squares for L1 and batch norms that take up their kernels' scales, "closest"
is the nearest to the float network of all criteria, equalized and not, with corrected biases; it
sees no label either.

- mnist: a CNN of 99.06 %, its 10,000 test pictures; calibrated on 256 of the train set. At 4 bits
  also after an epoch of training through the rounding.
- mobilenet: MobileNetV2 on 20 labelled pictures, calibrated on random crops of some of the same
  pictures, half of them mirrored. Its batch norms stay in float32, behind the integer products. No
  label is seen but to count.
- fashion: the ResNet-8 of `benchmarks/ternary.py`, trained here; batch norms as above.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import ternary
from tensorize_pretrained import crops, told, top
from timing import report

import regularizers as reg
from experiments.datasets import load
from experiments.pretrained import imagenet_pictures, mnist_cnn, mobilenet_v2
from morph.compress.fixed_point import equalized
from morph.compress.fixed_point_closest import closest
from morph.compress.plan import FixedPointPlan, fixed_point_plan
from morph.compress.training import accuracy_of, train
from morph.files import write_text
from morph.network import Network, linen_network
from morph.training.data import Batch
from morph.training.optimizers import make_optimizer, rate_schedule

WORDS = (16, 8, 6, 4)
WAYS = ("dynamic", "dynamic, equalized", "dynamic, closest", "static")
RETRAINED = 4  # bits
CALIBRATION = 256  # small pictures; of MobileNetV2
CROPS = 4
RATE, BATCH = 3e-4, 128  # of Adam, for training through rounding
FASHION_STEPS = 2000


class Planned(NamedTuple):
    """A plan, what its row begins with, and the variables that it is for."""

    row: dict[str, Any]
    plan: FixedPointPlan
    variables: Any


def planned(fn: Any, variables: Any, x: np.ndarray, words: Sequence[int]) -> Iterator[Planned]:
    """All plans, the shorter part of their rows first."""
    graph = reg.trace_channels(fn, variables, x)
    for word in words:
        for way in WAYS:
            start, own = time.perf_counter(), variables
            if way == "dynamic, closest":
                plan, own, _ = closest(fn, graph, variables, x, word_length=word)
            elif way == "dynamic, equalized":
                own = equalized(graph, variables)
                plan = fixed_point_plan(graph, own, (x,), word_length=word, criterion="l2")
            else:
                plan = fixed_point_plan(graph, own, (x,), word_length=word, dynamic=way != "static")
            lengths = [one.fractional_length for one in plan.weights.values()]
            data = [one.fractional_length for one in plan.data.values()]
            row = {
                "bits": word,
                "precision": way,
                "weights": f"{min(lengths)}..{max(lengths)}",
                "data": f"{min(data)}..{max(data)}",
                "seconds_of_a_plan": time.perf_counter() - start,
            }
            yield Planned(row, plan, own)


def small(
    network: Network, variables: Any, trained: Batch, tested: Batch, words: Sequence[int]
) -> list[dict[str, Any]]:
    """Accuracies of a network on small pictures."""
    x = trained.x[:CALIBRATION]
    exact = 100.0 * accuracy_of(network, variables, tested)
    rows: list[dict[str, Any]] = []
    for row, plan, own in planned(network.predict, variables, x, words):
        integers = replace(network, predict=plan.simulated(network.predict))
        found = 100.0 * accuracy_of(integers, own, tested)
        rows.append({**row, "accuracy": found, "points_lost": exact - found})
        if row["precision"] == "dynamic" and row["bits"] == RETRAINED:
            values = retrained(network, plan, variables, trained)
            after = 100.0 * accuracy_of(integers, values, tested)
            rows[-1] |= {"retrained": after, "points_lost_then": exact - after}
        told(str(rows[-1]))
    return [{"bits": "float", "accuracy": exact}, *rows]


def retrained(network: Network, plan: FixedPointPlan, variables: Any, data: Batch) -> Any:
    """The variables after an epoch of training through the rounding."""
    rounding = replace(
        network,
        predict=plan.simulated(network.predict, exact=False),
        forward=plan.simulated(network.forward, exact=False),
    )
    steps = len(data.x) // BATCH
    tx = make_optimizer("adam", rate_schedule(RATE, steps), weight_decay=0.0)
    return train(rounding, plan.apply(variables), data, tx, steps=steps, batch_size=BATCH)[0]


def mnist(words: Sequence[int]) -> list[dict[str, Any]]:
    """The pretrained CNN."""
    model, variables = mnist_cnn.load()
    data = load("mnist")
    return small(
        linen_network(model),
        variables,
        Batch(data.train_images, data.train_labels),
        Batch(data.test_images, data.test_labels),
        words,
    )


def fashion(words: Sequence[int]) -> list[dict[str, Any]]:
    """A ResNet-8, trained here."""
    trained, tested = ternary.pictures(2)
    network = ternary.network()
    start = network.init(jax.random.key(0), trained.x[:1])
    variables = ternary.fitted(network, start, trained, FASHION_STEPS, 0)
    return small(network, variables, trained, tested, words)


def mobilenet(words: Sequence[int]) -> list[dict[str, Any]]:
    """MobileNetV2: how many of 20 pictures are right, and are what the float network says."""
    model, variables = mobilenet_v2.load()
    images, labels = imagenet_pictures.load()
    seen = crops(np.full(20, True))[:CROPS]
    expected = np.asarray(jax.jit(model.apply)(variables, images))
    rows: list[dict[str, Any]] = [{"bits": "float", **top(expected, expected, labels)}]
    told(str(rows[-1]))
    for row, plan, own in planned(model.apply, variables, seen, words):
        # Operation by operation: those of all plans are the same, and compile once.
        logits = np.asarray(plan.simulated(model.apply)(own, images))
        rows.append({**row, **top(logits, expected, labels)})
        told(str(rows[-1]))
    return rows


STUDIES: Mapping[str, Callable[[Sequence[int]], list[dict[str, Any]]]] = {
    "mnist": mnist,
    "mobilenet": mobilenet,
    "fashion": fashion,
}


def main() -> None:
    """Runs the studies and writes their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--out", help="a JSON file; studies that do not run now stay in it")
    parser.add_argument("--bits", type=int, nargs="*", default=WORDS)
    args = parser.parse_args()
    for name in args.studies:
        rows = STUDIES[name](args.bits)
        print(name)
        report(rows[1:], None)
        if args.out:
            file = Path(args.out)
            known = json.loads(file.read_text("utf-8")) if file.exists() else {}
            known["device"] = jax.devices()[0].device_kind
            known["versions"] = {name: version(name) for name in ("jax", "flax", "numpy")}
            bits = " ".join(map(str, args.bits))
            command = f"python benchmarks/fixed_point.py {name} --bits {bits} --out {args.out}"
            studies = known.setdefault("studies", {})
            studies[name] = {"command": command, "rows": rows}
            write_text(file, json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
