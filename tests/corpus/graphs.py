"""Networks of nodes and edges, and of sets."""

from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from corpus.case import Case, integers, linen, normal

NODES, EDGES, GRAPHS = 6, 9, 2


@flax.struct.dataclass
class Graph:
    """Nodes [V, C], edges [E, D] and where they begin and end; the graph of every node."""

    nodes: jax.Array
    edges: jax.Array
    senders: jax.Array
    receivers: jax.Array
    belongs: jax.Array


def some_graph():
    """Two random graphs side by side."""
    return Graph(
        nodes=normal(NODES, 3),
        edges=normal(EDGES, 2, seed=1),
        senders=integers(NODES, EDGES, seed=2),
        receivers=integers(NODES, EDGES, seed=3),
        belongs=jnp.arange(NODES) // 3,
    )


class Convolution(nn.Module):
    """Neighbours are gathered, summed up per node and divided by their number."""

    @nn.compact
    def __call__(self, graph):
        x = graph.nodes
        degree = jax.ops.segment_sum(jnp.ones(EDGES), graph.receivers, NODES)
        for width in (7, 11):
            y = nn.Dense(width)(x)
            y = jax.ops.segment_sum(y[graph.senders], graph.receivers, NODES)
            x = nn.relu(y / jnp.maximum(degree, 1.0)[:, None])
        return nn.Dense(3)(jax.ops.segment_sum(x, graph.belongs, GRAPHS))


class Messages(nn.Module):
    """Edges and nodes update each other (message passing); a dataclass comes in."""

    @nn.compact
    def __call__(self, graph):
        x, e = nn.Dense(7)(graph.nodes), nn.Dense(5)(graph.edges)
        for _ in range(2):
            ends = [e, x[graph.senders], x[graph.receivers]]
            e += nn.Dense(5)(nn.relu(nn.Dense(11)(jnp.concatenate(ends, -1))))
            inbox = jnp.zeros((NODES, 5)).at[graph.receivers].add(e)
            x += nn.Dense(7)(nn.relu(jnp.concatenate([x, inbox], -1)))
        return nn.Dense(3)(x), nn.Dense(2)(e)


class Attention(nn.Module):
    """A softmax over the neighbours of every node, in several heads (GAT)."""

    @nn.compact
    def __call__(self, graph):
        x = nn.DenseGeneral((3, 7))(graph.nodes)  # [V, h, d]
        a = self.param("sender", nn.initializers.normal(), (3, 7))
        b = self.param("receiver", nn.initializers.normal(), (3, 7))
        score = (x * a[None]).sum(-1)[graph.senders] + (x * b[None]).sum(-1)[graph.receivers]
        score = nn.leaky_relu(score)
        top = jax.ops.segment_max(score, graph.receivers, NODES)
        weight = jnp.exp(score - top[graph.receivers])
        total = jax.ops.segment_sum(weight, graph.receivers, NODES)
        weight /= total[graph.receivers]
        y = jax.ops.segment_sum(weight[..., None] * x[graph.senders], graph.receivers, NODES)
        return nn.Dense(3)(nn.elu(y.reshape(NODES, -1)))


class Isomorphism(nn.Module):
    """An adjacency matrix instead of edges; the largest of every channel is read out (GIN)."""

    @nn.compact
    def __call__(self, graph):
        adjacency = jnp.zeros((NODES, NODES)).at[graph.receivers, graph.senders].add(1.0)
        x = nn.Dense(7)(graph.nodes)
        eps = self.param("eps", nn.initializers.zeros, ())
        x = (1.0 + eps) * x + adjacency @ x
        x = nn.relu(nn.Dense(11)(nn.relu(nn.Dense(5)(x))))
        return nn.Dense(3)(jax.ops.segment_max(x, graph.belongs, GRAPHS))


class DeepSet(nn.Module):
    """Sets of different sizes: sum, mean and maximum of what is not masked (PointNet)."""

    @nn.compact
    def __call__(self, batch):
        x, mask = batch["points"], batch["mask"][..., None]
        x = nn.relu(nn.Dense(7)(x))
        total = jnp.where(mask, x, 0.0).sum(1)
        mean = total / mask.sum(1)
        largest = jnp.where(mask, x, -jnp.inf).max(1)
        return nn.Dense(3)(nn.relu(nn.Dense(5)(jnp.concatenate([total, mean, largest], -1))))


class Neighbours(nn.Module):
    """The nearest points in space are gathered, their edges pooled (DGCNN)."""

    @nn.compact
    def __call__(self, x):
        apart = ((x[:, :, None] - x[:, None]) ** 2).sum(-1)
        _, near = jax.lax.top_k(-apart, 3)  # [N, T, 3]
        h = nn.Dense(7)(x)
        around = jax.vmap(lambda h, near: h[near])(h, near)  # [N, T, 3, C]
        h = jnp.broadcast_to(h[:, :, None], around.shape)
        edges = nn.relu(nn.Dense(11)(jnp.concatenate([h, around - h], -1)))
        return nn.Dense(3)(edges.max(2).mean(1))


def some_sets():
    """Two sets, of four points and of two."""
    return {"points": normal(2, 4, 3), "mask": jnp.arange(4)[None] < jnp.asarray([[4], [2]])}


NETWORKS: dict[str, Callable[[], Case]] = {
    "graph_convolution": lambda: linen(Convolution(), some_graph()),
    "graph_messages": lambda: linen(Messages(), some_graph()),
    "graph_attention": lambda: linen(Attention(), some_graph()),
    "graph_isomorphism": lambda: linen(Isomorphism(), some_graph()),
    "deep_set": lambda: linen(DeepSet(), some_sets()),
    "nearest_neighbours": lambda: linen(Neighbours(), normal(2, 5, 3)),
}
