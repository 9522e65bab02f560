"""jraphx: graph networks in NNX."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx
from jraphx.nn.models.gnn import GAT, GCN, GIN, GraphSAGE
from models import Specimen, floats, integers, of_nnx

EDGES = integers(11, 2, 30)


def graph(build: Any, **options: Any) -> Specimen:
    model = build(7, 16, 3, 5, rngs=nnx.Rngs(0), **options)
    return of_nnx(model, floats(11, 7), EDGES)


MODELS: dict[str, Callable[[], Specimen]] = {
    "gcn": partial(graph, GCN),
    "gcn-jumping": partial(graph, GCN, jk="cat", residual=True),
    "gat": partial(graph, GAT, heads=2),
    "gatv2": partial(graph, GAT, heads=2, v2=True, norm="layer_norm"),
    "sage": partial(graph, GraphSAGE, norm="batch_norm"),
    "sage-max": partial(graph, GraphSAGE, aggr="max"),
    "gin": partial(graph, GIN),
}
