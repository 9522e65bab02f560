"""Exports of three networks, and how well the files agree with JAX on real images.

    python benchmarks/exports.py --out results/exports.json

- `resnet8` on the digits, four times as wide: half of every group's channels are cut at random,
  then it is trained.
- `inception` on the digits, three times as wide: a whole tower is removed, and a quarter of the
  channels.
- `mobilenet_v2` with ImageNet weights, on 20 pictures. It is calibrated with these pictures, their
  mirror images and crops of them: there are no others. Its int8 figures are those of the pictures
  that it was calibrated with.

Must hold: StableHLO and ONNX within 1e-4 of JAX (by the largest logit); int8 TFLite and ONNX at
most 1 point from the floats, 1 picture of 20 for the pictures (top-1 and top-5), and ONNX int8 in
at most 0.3 of the bytes of the floats.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import report

from experiments import datasets
from experiments.networks import build
from experiments.pretrained import imagenet_pictures, mobilenet_v2
from morph.architecture.architecture import Architecture
from morph.architecture.shrink import shrink
from morph.export import (
    Exported,
    bundle,
    compare,
    edge_tpu,
    flatbuffer,
    onnx,
    onnx_int8,
    stablehlo,
    tflite,
)
from morph.network import Network, linen_network
from regularizers.channels.trace import trace_channels
from regularizers.costs.flops import flops

FLOAT_LIMIT = 1e-4
POINTS = {"resnet8": 1.0, "inception": 1.0, "mobilenet_v2": 5.0}  # 5: one picture of 20
CALIBRATION = 300  # training images of the digits


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network to export, and what to judge it by."""

    name: str
    fn: Callable[[Any, Any], Any]
    variables: Any
    images: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray
    top: tuple[int, ...] = (1,)
    architecture: Architecture | None = None
    notes: str = ""


def fit(network: Network, variables: Any, images: Any, labels: Any, steps: int) -> Any:
    """Trains with Adam and a cosine schedule on batches of 128; returns the variables."""
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @jax.jit
    def step(variables: Any, state: Any, key: Any) -> tuple[Any, Any]:
        chosen = jax.random.randint(key, (128,), 0, len(images))

        def loss(params: Any) -> tuple[Any, Any]:
            logits, updates = network.forward({**variables, "params": params}, images[chosen], key)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen])
            return losses.mean(), updates

        gradients, updates = jax.grad(loss, has_aux=True)(variables["params"])
        change, state = optimizer.update(gradients, state, variables["params"])
        params = optax.apply_updates(variables["params"], change)
        return {**variables, **updates, "params": params}, state

    state = optimizer.init(variables["params"])
    for key in jax.random.split(jax.random.key(1), steps):
        variables, state = step(variables, state, key)
    return variables


def digits(name: str, keep: float, towers: int, steps: int, width: float) -> Case:
    """A seed network, shrunk at random, without its first `towers` blocks that can go, trained."""
    data = datasets.load("digits")
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    seed = linen_network(build(name, input_shape=images.shape[1:], num_classes=10, width=width))
    variables = fit(seed, seed.init(jax.random.key(0), images[:1]), images, labels, steps // 2)
    graph = trace_channels(seed.predict, variables, images[:1])
    rng = np.random.default_rng(0)
    alive = {
        group: rng.permutation(width) < max(1, round(keep * width))
        for group, width in graph.widths.items()
    }
    removed = list(graph.blocks)[:towers]
    architecture = shrink(graph, alive, removed=removed)
    network = seed.resized(architecture)
    variables = fit(network, architecture.take(variables), images, labels, steps)
    gone = f", {', '.join(removed)} removed" if removed else ""
    return Case(
        name=name,
        fn=network.predict,
        variables=variables,
        images=data.test_images,
        labels=data.test_labels,
        calibration=data.train_images[:CALIBRATION],
        architecture=architecture,
        notes=f"Digits; {keep:.0%} of the channels kept, at random{gone}; calibrated with "
        f"{CALIBRATION} training images.",
    )


def pictures() -> Case:
    """MobileNetV2 with its ImageNet weights."""
    module, variables = mobilenet_v2.load()
    found = imagenet_pictures.load()
    large = imagenet_pictures.load(size=256).images
    crops = [large[:, r : r + 224, c : c + 224] for r, c in ((0, 0), (0, 32), (32, 0), (16, 16))]
    views = [found.images, *crops]
    return Case(
        name="mobilenet_v2",
        fn=linen_network(module).predict,
        variables=variables,
        images=found.images,
        labels=found.labels,
        calibration=np.concatenate([*views, *(view[:, :, ::-1] for view in views)]),
        top=(1, 5),
        notes="ImageNet weights; calibrated with the 20 pictures that it is judged by, four crops "
        "of each, and the mirror images of all.",
    )


CASES: dict[str, Callable[[], Case]] = {
    "resnet8": lambda: digits("resnet8", 0.5, 0, 200, 4.0),
    "inception": lambda: digits("inception", 0.75, 1, 200, 3.0),
    "mobilenet_v2": pictures,
}


def exports(case: Case, folder: Path) -> list[Exported]:
    """Writes all three files."""
    example = case.images[:1]
    given = case.fn, case.variables, example
    return [
        stablehlo.to_stablehlo(*given, folder / "network.stablehlo"),
        onnx.to_onnx(*given, folder / "network.onnx"),
        onnx_int8.to_onnx_int8(
            *given, folder / "network.int8.onnx", calibration=case.calibration[:CALIBRATION]
        ),
        tflite.to_tflite(*given, folder / "network.tflite", calibration=case.calibration),
    ]


LOAD = {
    "stablehlo": stablehlo.load, "onnx": onnx.load, "onnx_int8": onnx_int8.load,
    "tflite": tflite.load,
}  # fmt: skip
INT8 = ("onnx_int8", "tflite")
SHARE = 0.3  # of the bytes of the floats


def measure(case: Case, folder: Path, command: str) -> list[dict[str, Any]]:
    """One row per target; the bundle is written, read back and verified."""
    wanted = np.asarray(jax.jit(case.fn)(case.variables, case.images))
    written = exports(case, folder)
    found = {
        one.target: compare(
            wanted, LOAD[one.target](one.path)(case.images), case.labels, top=case.top
        )
        for one in written
    }
    graph = trace_channels(case.fn, case.variables, case.images[:1])
    place = edge_tpu.placement(folder / "network.tflite")
    print(f"{case.name}: {place}")
    parameters = sum(int(leaf.size) for leaf in jax.tree.leaves(case.variables["params"]))
    figures = {
        "parameters": parameters,
        "FLOPs": int(flops(graph)()),
        **{f"top-{k} accuracy": v for k, v in found["stablehlo"].reference_accuracy.items()},
        "Edge TPU": f"{place.seconds * 1e3:.2f} ms predicted, {len(place.on_cpu)} operations on "
        "the CPU",
    }
    bundle.save(
        folder,
        case.variables,
        written,
        name=case.name,
        figures=figures,
        agreements=found,
        architecture=case.architecture,
        command=command,
        notes=case.notes,
    )
    sizes = {p.name: p.stat().st_size for p in sorted(folder.iterdir())}
    read = bundle.load(folder)
    assert read.figures == figures
    graph_of = flatbuffer.read((folder / "network.tflite").read_bytes())
    rows = []
    for one in written:
        agreement = found[one.target]
        limit = POINTS[case.name] if one.target in INT8 else 0.0
        close = one.target in INT8 or agreement.logit_difference <= FLOAT_LIMIT
        share = one.size_bytes / (folder / "network.onnx").stat().st_size
        small = one.target != "onnx_int8" or share <= SHARE
        rows.append(
            {
                "network": case.name,
                "target": one.target,
                "bytes": one.size_bytes,
                "batch": "any" if one.batch is None else one.batch,
                "logit_difference": agreement.logit_difference,
                "same_class": agreement.same_class,
                "points_lost": agreement.points,
                "holds": close and small and agreement.points <= limit + 1e-9,
                "bytes_of_onnx": round(share, 4),
                "agreement": asdict(agreement),
                "details": {
                    "notes": case.notes,
                    "note": one.note,
                    "figures": figures,
                    "bundle_bytes": sizes,
                    "layers": [asdict(own) for own in onnx_int8.errors(one.path)]
                    if one.target == "onnx_int8"
                    else [],
                    "tflite_operations": dict(Counter(op.name for op in graph_of.operations)),
                },
            }
        )
    return rows


def main() -> None:
    """Exports the networks and prints what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--bundles", type=Path, help="where to keep the bundles")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.networks:
            folder = (arguments.bundles or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            rows += measure(
                CASES[name](), folder, f"python benchmarks/exports.py --networks {name}"
            )
    packages = ("onnx", "onnxruntime", "ai-edge-litert", "litert-converter", "ai-edge-quantizer")
    facts = {"packages": {name: version(name) for name in packages}}
    report(rows, arguments.out, **facts, holds=all(row["holds"] for row in rows))


if __name__ == "__main__":
    main()
