"""Exports of networks, dense and shrunk, and how well the files agree with JAX on test images.

    python benchmarks/exports.py --out results/exports.json

- `mnist_cnn`, which others trained on MNIST; and at half of its FLOPs (`morph.prune`, 40 steps).
- `resnet8` on CIFAR-10 and `inception` on Fashion-MNIST, twice as wide, trained here for some
  minutes; and shrunk: half of every group's channels, or a quarter and a tower, are cut at random,
  and it is trained on. They are no good networks; 10,000 test images show what int8 loses.
- `mobilenet_v2` with ImageNet weights, on 20 pictures, which cannot show one point. It is
  calibrated with these, crops of them, and the mirror images of all: there are no others. How it
  agrees with JAX is also measured on 200 other crops.

Must hold: StableHLO and ONNX within 1e-4 of JAX (by the largest logit); int8 TFLite and ONNX at
most 1 point from the floats, 1 picture of 20 for the pictures (top-1 and top-5), and ONNX int8 in
at most 0.3 of the bytes of the floats. With `--networks` the file keeps the rows of the others.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import report

import morph
from experiments import datasets
from experiments.networks import build
from experiments.pretrained import imagenet_pictures, mnist_cnn, mobilenet_v2
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
from morph.export.trial import norm_difference
from morph.network import Network, linen_network
from regularizers.channels.trace import trace_channels
from regularizers.costs.flops import flops

FLOAT_LIMIT = 1e-4
POINTS, OF_TWENTY = 1.0, 5.0  # the latter: one picture of 20
FEW = 100  # test images, of which one is more than a point
CALIBRATION = 300  # training images
BATCH, RATE = 64, 2e-3
PRUNING = 32  # batches of 32 images that saliency is measured on
CROPS = 10  # of each picture, which it was not calibrated with


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network to export, and what to judge it by."""

    name: str
    size: str
    fn: Callable[[Any, Any], Any]
    variables: Any
    images: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray
    views: np.ndarray | None = None  # without labels
    top: tuple[int, ...] = (1,)
    architecture: Architecture | None = None
    notes: str = ""


def fit(
    network: Network, variables: Any, data: datasets.Dataset, steps: int, rate: float = RATE
) -> Any:
    """Trains with Adam and a cosine schedule; returns the variables."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def step(variables: Any, state: Any, key: Any, x: Any, y: Any) -> tuple[Any, Any]:
        def loss(params: Any) -> tuple[Any, Any]:
            logits, updates = network.forward({**variables, "params": params}, x, key)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), updates

        gradients, updates = jax.grad(loss, has_aux=True)(variables["params"])
        change, state = optimizer.update(gradients, state, variables["params"])
        params = optax.apply_updates(variables["params"], change)
        return {**variables, **updates, "params": params}, state

    state, rng = optimizer.init(variables["params"]), np.random.default_rng(1)
    for key in jax.random.split(jax.random.key(1), steps):
        rows = rng.integers(len(data.train_images), size=BATCH)
        variables, state = step(
            variables, state, key, data.train_images[rows], data.train_labels[rows]
        )
    return variables


def pair(
    name: str, data: datasets.Dataset, seed: Network, variables: Any, arch: Architecture,
    steps: int, notes: str,
) -> Iterator[Case]:  # fmt: skip
    """A network as it is, and shrunk and trained on."""
    network = seed.resized(arch)
    small = fit(network, arch.take(variables), data, steps, RATE / 2)
    told = f"calibrated with {CALIBRATION} training images."
    for size, own, values, architecture, cut in (
        ("dense", seed, variables, None, ""), ("shrunk", network, small, arch, f"{notes}; "),
    ):  # fmt: skip
        yield Case(
            name=name, size=size, fn=own.predict, variables=values, images=data.test_images,
            labels=data.test_labels, calibration=data.train_images[:CALIBRATION],
            architecture=architecture, notes=f"{data.name}; {cut}{told}",
        )  # fmt: skip


def trained_here(
    name: str, dataset: str, keep: float, towers: int, steps: int, width: float
) -> Iterator[Case]:
    """A seed network, and shrunk at random, without its first `towers` blocks that can go."""
    data = datasets.load(dataset)
    shape = data.train_images.shape[1:]
    seed = linen_network(build(name, input_shape=shape, num_classes=10, width=width))
    x = data.train_images[:1]
    variables = fit(seed, seed.init(jax.random.key(0), jnp.asarray(x)), data, steps)
    graph = trace_channels(seed.predict, variables, x)
    rng = np.random.default_rng(0)
    alive = {
        group: rng.permutation(width) < max(1, round(keep * width))
        for group, width in graph.widths.items()
    }
    removed = list(graph.blocks)[:towers]
    gone = f", {', '.join(removed)} removed" if removed else ""
    yield from pair(
        name, data, seed, variables, shrink(graph, alive, removed=removed), steps // 2,
        f"{keep:.0%} of the channels kept, at random{gone}",
    )  # fmt: skip


def of_mnist() -> Iterator[Case]:
    """A CNN that others trained, and at half of its FLOPs."""
    module, variables = mnist_cnn.load()
    seed, data = linen_network(module), datasets.load("mnist")
    graph = trace_channels(seed.predict, variables, data.train_images[:1])

    def loss(variables: Any, batch: Any) -> Any:
        logits = seed.predict(variables, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    rows = np.arange(PRUNING * 32).reshape(PRUNING, 32)
    batches = [(data.train_images[own], data.train_labels[own]) for own in rows]
    arch = morph.prune(graph, variables, flops(graph), 0.5, loss=loss, batches=batches)
    yield from pair("mnist_cnn", data, seed, variables, arch, 40, "half of the FLOPs")


def pictures() -> Iterator[Case]:
    """MobileNetV2 with its ImageNet weights."""
    module, variables = mobilenet_v2.load()
    found = imagenet_pictures.load()
    large = imagenet_pictures.load(size=256).images
    crops = [large[:, r : r + 224, c : c + 224] for r, c in ((0, 0), (0, 32), (32, 0), (16, 16))]
    views = [found.images, *crops]
    larger = imagenet_pictures.load(size=288).images
    places = np.random.default_rng(7).integers(0, 65, (CROPS, 2))
    others = [larger[:, r : r + 224, c : c + 224] for r, c in places]
    yield Case(
        name="mobilenet_v2",
        size="dense",
        fn=linen_network(module).predict,
        variables=variables,
        images=found.images,
        labels=found.labels,
        calibration=np.concatenate([*views, *(view[:, :, ::-1] for view in views)]),
        views=np.concatenate([own[:, :, ::-1] if k % 2 else own for k, own in enumerate(others)]),
        top=(1, 5),
        notes="ImageNet weights; calibrated with the 20 pictures that it is judged by, four crops "
        "of each, and the mirror images of all.",
    )


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "mnist_cnn": of_mnist,
    "resnet8": lambda: trained_here("resnet8", "cifar10", 0.5, 0, 250, 2.0),
    "inception": lambda: trained_here("inception", "fashion_mnist", 0.75, 1, 200, 2.0),
    "mobilenet_v2": pictures,
}


def exports(case: Case, folder: Path) -> list[Exported]:
    """Writes all files."""
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


def in_parts(run: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
    """Outputs, some images at once."""
    return np.concatenate(
        [np.asarray(run(images[i : i + 100])) for i in range(0, len(images), 100)]
    )


LOAD = {
    "stablehlo": stablehlo.load, "onnx": onnx.load, "onnx_int8": onnx_int8.load,
    "tflite": tflite.load,
}  # fmt: skip
INT8 = ("onnx_int8", "tflite")
SHARE = 0.3  # of the bytes of the floats


def views_of(case: Case, run: Callable[[Any], Any]) -> dict[str, Any]:
    """How a file agrees with JAX on images without labels, if there are some."""
    if case.views is None:
        return {}
    wanted = in_parts(lambda x: jax.jit(case.fn)(case.variables, x), case.views)
    found = in_parts(run, case.views)
    return {
        "views": len(wanted),
        "same_class_of_views": float(np.mean(wanted.argmax(1) == found.argmax(1))),
        "norm_difference_of_views": norm_difference(wanted, found),
    }


def measure(case: Case, folder: Path, command: str) -> list[dict[str, Any]]:
    """One row per target; the bundle is written, read back and verified."""
    run = jax.jit(case.fn)
    wanted = in_parts(lambda x: run(case.variables, x), case.images)
    written = exports(case, folder)
    found = {
        one.target: compare(
            wanted,
            in_parts(LOAD[one.target](one.path), case.images),
            case.labels,
            top=case.top,
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
        points = OF_TWENTY if len(case.images) < FEW else POINTS
        limit = points if one.target in INT8 else 0.0
        close = one.target in INT8 or agreement.logit_difference <= FLOAT_LIMIT
        share = one.size_bytes / (folder / "network.onnx").stat().st_size
        small = one.target != "onnx_int8" or share <= SHARE
        rows.append(
            {
                "network": case.name,
                "size": case.size,
                "test_images": len(case.images),
                "target": one.target,
                "bytes": one.size_bytes,
                "batch": "any" if one.batch is None else one.batch,
                "logit_difference": agreement.logit_difference,
                "same_class": agreement.same_class,
                "points_lost": agreement.points,
                "holds": close and small and agreement.points <= limit + 1e-9,
                "bytes_of_onnx": round(share, 4),
                **views_of(case, LOAD[one.target](one.path)),
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
    if arguments.out and Path(arguments.out).exists():
        known = json.loads(Path(arguments.out).read_text())["rows"]
        rows = [row for row in known if row["network"] not in arguments.networks]
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.networks:
            command = f"python benchmarks/exports.py --networks {name}"
            for case in CASES[name]():
                folder = (arguments.bundles or Path(scratch)) / f"{name}_{case.size}"
                folder.mkdir(parents=True, exist_ok=True)
                rows += measure(case, folder, command)
    rows.sort(key=lambda row: list(CASES).index(row["network"]))
    packages = ("onnx", "onnxruntime", "ai-edge-litert", "litert-converter", "ai-edge-quantizer")
    facts = {"packages": {name: version(name) for name in packages}}
    report(rows, arguments.out, **facts, holds=all(row["holds"] for row in rows))


if __name__ == "__main__":
    main()
