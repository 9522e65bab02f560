"""How well a calibration predicts the latency of whole networks, none of which it was fitted on.

    python benchmarks/latency.py --output results/latency.json

Every round times each of the calibration's programs and each network once, so that whatever else
the machine does hits predictions and measurements alike (about six minutes in all).
Targets: median absolute percentage error at most 15 %, Spearman's rank correlation at least 0.97.
"""

import argparse
import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from models import (
    DenseNet121,
    InvertedResidual,
    MobileNetV2,
    ResNet,
    ViT,
    batch_norm,
    random_variables,
)
from timing import report

import regularizers as reg
from experiments.fit_edge_tpu import spearman
from experiments.networks import build
from regularizers.calibration.measure import summarise, work_of
from regularizers.calibration.programs import designed
from regularizers.calibration.timing import ROUNDS, compiled, interleaved

ERROR_TARGET, SPEARMAN_TARGET = 0.15, 0.97
BATCHES = (1, 8)


class SmallMobileNet(nn.Module):
    """The first stages of MobileNetV2, with `width` times the channels (multiples of 8)."""

    width: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits, [N, 100]."""
        conv, norm = partial(nn.Conv, use_bias=False), batch_norm(False)

        def wide(channels: int) -> int:
            return max(8, round(channels * self.width / 8) * 8)

        x = nn.relu6(norm()(conv(wide(32), (3, 3), 2)(x)))
        stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 1), (6, 96, 1, 2))
        for expansion, channels, blocks, stride in stages:
            for block in range(blocks):
                x = InvertedResidual(wide(channels), 1 if block else stride, expansion)(x)
        x = nn.relu6(norm()(conv(wide(640), (1, 1))(x)))
        return nn.Dense(100)(x.mean(axis=(1, 2)))


def networks() -> Iterator[tuple[str, nn.Module, int]]:
    """Name, network and side of its input image."""
    for name, side, widths in (
        ("resnet8", 32, (0.5, 1.0, 1.3, 2.0)),
        ("resnet20", 32, (1.0, 1.5)),
        ("inception", 32, (0.5, 1.0, 2.0)),
        ("inception_v2", 64, (0.25,)),
        ("mlp", 32, (1.0, 3.0)),
        ("cnn", 32, (1.0,)),
        ("cnn", 48, (2.0,)),
        ("hybrid", 28, (0.5, 1.0)),
    ):
        for width in widths:
            model = build(name, input_shape=(side, side, 3), num_classes=10, width=width)
            yield f"{name} x{width:g}", model, side
    for width in (0.5, 1.0):
        yield f"mobilenet x{width:g}", SmallMobileNet(width), 64
    yield "mobilenet_v2", MobileNetV2(num_classes=100), 64
    yield "densenet 2-3-4", DenseNet121(16, (2, 3, 4), 100), 64
    yield "resnet14 bottleneck", ResNet((1, 1, 1, 1), num_classes=100), 64
    for layers, features, heads, patch, side in (
        (4, 64, 4, 4, 32),
        (4, 128, 4, 8, 64),
        (6, 192, 3, 8, 32),
    ):
        yield f"vit {layers}x{features}", ViT(layers, features, heads, patch, 100), side


def main() -> None:
    """Measures, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90.0, help="how long to time, about")
    parser.add_argument("--output", help="write the table as JSON to this path")
    flags = parser.parse_args()
    load_before = os.getloadavg()[0]
    start = time.perf_counter()

    programs = designed()
    works = [work_of(program) for program in programs]
    runs = [compiled(program, *program.arrays()) for program in programs]
    print(f"{len(runs)} programs compiled after {time.perf_counter() - start:.0f} s", flush=True)
    rows: list[dict[str, Any]] = []
    graphs = []
    for name, model, side in networks():
        for batch in BATCHES:
            x = jax.ShapeDtypeStruct((batch, side, side, 3), np.float32)
            abstract = jax.eval_shape(model.init, jax.random.key(0), x)
            graphs.append(reg.trace_channels(model.apply, abstract, x))
            image = np.random.default_rng(0).standard_normal(x.shape, np.float32)
            variables = random_variables(abstract)
            runs.append(compiled(model.apply, variables, jax.device_put(image)))
            rows.append({"network": name, "image": side, "batch": batch})
    print(f"{len(rows)} networks compiled after {time.perf_counter() - start:.0f} s", flush=True)

    times = interleaved(runs, seconds=flags.seconds)
    calibration = summarise(
        works, times[: len(programs)], device=jax.local_devices()[0], load=load_before
    )
    measured = np.median(times[len(programs) :], axis=1)
    predicted = np.asarray([reg.latency(graph, calibration)() for graph in graphs])
    errors = predicted / measured - 1.0
    for row, seen, said, error in zip(rows, measured, predicted, errors, strict=True):
        row |= {"measured_ms": 1e3 * seen, "predicted_ms": 1e3 * said, "error": float(error)}
    summary = {
        "median_absolute_error": float(np.median(np.abs(errors))),
        "mean_absolute_error": float(np.mean(np.abs(errors))),
        "spearman": spearman(predicted, measured),
        "targets": {"median_absolute_error": ERROR_TARGET, "spearman": SPEARMAN_TARGET},
        "held_out_error": calibration.held_out_error,
        "spread": calibration.spread,
        "error_bar": calibration.error_bar,
        "busy": calibration.busy,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "rounds": ROUNDS,
        "seconds": time.perf_counter() - start,
    }
    report(
        rows,
        flags.output,
        command="python benchmarks/latency.py --output results/latency.json",
        calibrated_device=calibration.device,
        **summary,
        seconds_per_unit=dict(calibration.seconds_per_unit),
        cache_bytes=calibration.cache_bytes,
    )
    for name, value in summary.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
