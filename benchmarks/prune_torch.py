"""Torch-Pruning's side of `against_torch_pruning.py`: one line of JSON per line that it reads.

Runs in Torch-Pruning's environment, which has no JAX.
"""

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import torch
import torch_pruning as tp
from torch_models import Attention, build


def prune(model: torch.nn.Module, image: torch.Tensor) -> None:
    """Builds the graph, and removes the globally weakest half of all channels, in place."""
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    pruner = tp.pruner.MagnitudePruner(
        model,
        image,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=0.5,
        ignored_layers=[model.head],
        num_heads={attention.qkv: attention.heads for attention in attentions},
        in_channel_groups={},  # its defaults are shared between pruners
        out_channel_groups={},
    )
    pruner.step()


def parameters(model: torch.nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure(name: str, seed: int) -> dict[str, Any]:
    """Seconds of one prune of a new model, and the share of its parameters that is left."""
    torch.manual_seed(seed)
    model, image = build(name), torch.randn(1, 3, 224, 224)
    before = parameters(model)
    start, cpu_start = time.perf_counter(), time.process_time()
    prune(model, image)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    with torch.no_grad():
        assert model(image).shape == (1, 1000)
    left = parameters(model) / before
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "parameters_left": left}


def main() -> None:
    """Answers until its input ends; the first line holds the versions."""
    torch.set_num_threads(1)
    names = ("torch", "torch-pruning")
    print(json.dumps({name: version(name) for name in names}), flush=True)
    for seed, _ in enumerate(sys.stdin):
        print(json.dumps(measure(sys.argv[1], seed)), flush=True)


if __name__ == "__main__":
    main()
