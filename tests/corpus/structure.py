"""Structures of programs: branches, types, inputs and outputs of every form, shared variables."""

from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from corpus.case import BATCH_NORM, DROPOUT, Case, from_nnx, integers, linen, normal, plain
from flax import nnx
from jax import lax


class MLP(nn.Module):
    """Two hidden layers and dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.tanh(nn.Dense(11)(x))
        x = nn.Dropout(0.4, deterministic=not train)(x)
        return nn.Dense(3)(nn.selu(nn.Dense(7)(x)))


class Highway(nn.Module):
    """A sigmoid chooses, channel by channel, between new and old."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(7)(x)
        for _ in range(2):
            gate = nn.sigmoid(nn.Dense(7)(x))
            x = gate * nn.relu(nn.Dense(7)(x)) + (1.0 - gate) * x
        return nn.Dense(3)(x)


class Maxout(nn.Module):
    """The largest of several linear functions, and of both signs (CReLU)."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(21)(x).reshape(*x.shape[:-1], 3, 7).max(-2)
        x = nn.Dense(5)(x)
        return nn.Dense(3)(nn.relu(jnp.concatenate([x, -x], -1)))


class StopGradient(nn.Module):
    """A target branch without gradients, and one prediction for it (BYOL)."""

    @nn.compact
    def __call__(self, x, y):
        project, predict = nn.Dense(7), nn.Dense(7)
        a, b = nn.relu(nn.Dense(11)(x)), nn.relu(nn.Dense(5)(y))
        online, target = predict(nn.relu(project(a))), lax.stop_gradient(nn.Dense(7)(b))
        return ((online - target) ** 2).mean(-1)


class Branches(nn.Module):
    """One of several branches, chosen by an input."""

    @nn.compact
    def __call__(self, x, which):
        x = nn.relu(nn.Dense(7)(x))
        layers = [nn.Dense(7, name=f"branch_{k}") for k in range(3)]
        if self.is_initializing():
            for layer in layers:
                layer(x)
        y = nn.switch(which, [lambda _, x, k=k: nn.relu(layers[k](x)) for k in range(3)], self, x)
        return nn.Dense(3)(y)


def conditional(v, x, flag):
    """An extra layer, only if a flag is set; the other branch passes its input on."""
    h = jax.nn.relu(x @ v["first"])
    h = lax.cond(flag, lambda h: h + jnp.tanh(h @ v["up"]) @ v["down"], lambda h: 0.5 * h, h)
    return h @ v["head"]


def static_arguments(v, x, *, depth=1, activation="relu", scale=1.0):
    """Keyword arguments that are no arrays decide what is computed."""
    act = {"relu": jax.nn.relu, "tanh": jnp.tanh}[activation]
    h = act(x @ v["first"])
    for _ in range(depth):
        h += scale * act(h @ v["middle"])
    return h @ v["head"]


@flax.struct.dataclass
class Batch:
    """What a model of several modes takes, and what it gives."""

    image: jax.Array
    text: jax.Array
    scale: float = flax.struct.field(pytree_node=False, default=2.0)


class Multimodal(nn.Module):
    """A dataclass comes in, and one goes out; both modes meet in one space (CLIP)."""

    @nn.compact
    def __call__(self, batch):
        image = nn.relu(nn.Conv(7, (2, 2))(batch.image)).mean((1, 2))
        text = nn.Embed(13, 5)(batch.text).mean(1)
        image, text = nn.Dense(11, use_bias=False)(image), nn.Dense(11, use_bias=False)(text)

        def unit(x):
            return x / jnp.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)

        scores = batch.scale * unit(image) @ unit(text).T
        return batch.replace(image=scores, text=scores.argmax(-1))


def some_batch():
    """Two pairs of an image and a text."""
    return Batch(image=normal(2, 3, 3, 3), text=integers(13, 2, 4))


class Positions(nn.Module):
    """Positions counted along tokens that are not padding: a cumulative sum."""

    @nn.compact
    def __call__(self, ids):
        present = ids > 0
        place = jnp.cumsum(present, -1) * present
        x = nn.Embed(13, 7)(ids) + nn.Embed(9, 7)(place)
        x = jnp.cumsum(x, 1) / jnp.maximum(jnp.cumsum(present, 1), 1)[..., None]
        return nn.Dense(3)(nn.relu(nn.Dense(11)(x)))


def int8(v, x):
    """Kernels in int8 with a scale per output, inputs quantized; products in int32."""
    h = jnp.round(jnp.clip(x * 20.0, -127, 127)).astype(jnp.int8)
    y = lax.dot_general(
        h, v["constants"]["kernel"], (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32
    )
    y = y.astype(jnp.float32) * v["params"]["scale"][None] + v["params"]["bias"][None]
    return jax.nn.relu(y) @ v["params"]["head"]


def some_int8():
    """The quantized kernel is a constant."""
    params = {"scale": (7,), "bias": (7,), "head": (7, 3)}
    kernel = integers(255, 5, 7) - 127
    variables = {"params": params, "constants": {"kernel": kernel.astype(jnp.int8)}}
    return plain(int8, variables, normal(2, 5))


def bfloat16(v, x):
    """Variables in bfloat16, products in float32."""
    v = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), v)
    h = jax.nn.gelu(x @ v["first"] + v["bias"][None])
    return (h + jax.nn.gelu(h @ v["second"])) @ v["head"]


def some_bfloat16():
    """The shapes of `bfloat16`'s variables, which JAX rounds to that type."""
    shapes = {"first": (5, 7), "bias": (7,), "second": (7, 7), "head": (7, 3)}
    structs = {name: jax.ShapeDtypeStruct(s, jnp.bfloat16) for name, s in shapes.items()}
    return plain(bfloat16, structs, normal(2, 5))


def complex_valued(v, x):
    """A layer of complex numbers, of which the modulus is taken, and one of phases."""
    z = x.astype(jnp.complex64) @ v["first"]
    z = z * lax.complex(jax.nn.relu(z.real), jax.nn.relu(z.imag))
    z = z @ v["second"]
    return (z * z.conj()).real @ v["head"]


def some_complex():
    """The shapes of `complex_valued`'s variables."""
    shapes = {"first": (5, 7), "second": (7, 11)}
    structs = {name: jax.ShapeDtypeStruct(s, jnp.complex64) for name, s in shapes.items()}
    return plain(complex_valued, {**structs, "head": (11, 3)}, normal(2, 5))


def low_rank(v, x):
    """A kernel that is the product of two, and one that is a Kronecker product."""
    h = jax.nn.relu(x @ (v["left"] @ v["right"]))
    kernel = jnp.kron(v["outer"], v["inner"])  # [3 * 2, 5 * 4]
    return jax.nn.relu(jax.nn.relu(h @ v["middle"]) @ kernel) @ v["head"]


def tied_autoencoder(v, x):
    """The decoder's kernels are the encoder's, transposed."""
    h = jax.nn.sigmoid(x @ v["first"]) * (x @ v["gate"])
    code = h @ v["second"]
    return jax.nn.relu(code @ v["second"].T) @ v["first"].T


def bilinear(v, x, y):
    """Every pair of channels of two inputs, and a factorization machine."""
    a, b = jax.nn.relu(x @ v["left"]), jax.nn.relu(y @ v["right"])
    pairs = jnp.einsum("ni,nj,ijo->no", a, b, v["pairs"])
    factors = x @ v["factors"]
    square = (factors**2).sum(-1) - ((x**2) @ (v["factors"] ** 2)).sum(-1)
    return pairs, square


def kernels_of_frequencies(v, x):
    """Random features, periodic activations, and a reduction by logsumexp over classes."""
    h = jnp.sin(3.0 * (x @ v["first"])) * v["gain"][None]
    features = jnp.concatenate([jnp.cos(h @ v["second"]), jnp.sin(h @ v["second"])], -1)
    logits = features @ v["head"]
    return logits - jax.nn.logsumexp(logits, -1, keepdims=True)


def vmapped(v, x):
    """An ensemble: the same function under vmap, over stacked variables."""

    def one(kernels, x):
        return jax.nn.relu(x @ kernels["first"]) @ kernels["second"]

    votes = jax.vmap(one, (0, None))(v, x)
    return votes.mean(0), votes.std(0)


def energy(v, x):
    """The gradient of a network in its input is part of the network (score, forces)."""

    def potential(x):
        return (jax.nn.softplus(jax.nn.softplus(x @ v["first"]) @ v["second"]) @ v["head"]).sum()

    value, slope = jax.value_and_grad(potential)(x)
    return value, slope


@jax.custom_vjp
def clipped(x):
    """The identity, whose gradient is clipped."""
    return x


clipped.defvjp(lambda x: (x, ()), lambda _, g: (jnp.clip(g, -0.1, 0.1),))


def custom_gradient(v, x):
    """Gradients by a rule of the user's own."""
    return clipped(jax.nn.relu(clipped(x @ v["first"]) @ v["second"])) @ v["head"]


class NNXResNet(nnx.Module):
    """Residual blocks with batch norm, in NNX."""

    def __init__(self, *, rngs):
        self.stem = nnx.Conv(3, 7, (3, 3), rngs=rngs)
        self.first = nnx.Conv(7, 5, (3, 3), use_bias=False, rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(n, rngs=rngs) for n in (5, 7)])
        self.second = nnx.Conv(5, 7, (3, 3), use_bias=False, rngs=rngs)
        self.head = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        y = self.second(nnx.relu(self.norms[0](self.first(x))))
        return self.head(nnx.relu(x + self.norms[1](y)).mean((1, 2)))


class NNXSiamese(nnx.Module):
    """One encoder used on both inputs; heads in a dictionary."""

    def __init__(self, *, rngs):
        self.encoder = nnx.Sequential(nnx.Linear(5, 11, rngs=rngs), nnx.relu)
        self.out = nnx.Dict({name: nnx.Linear(11, 2, rngs=rngs) for name in ("same", "kind")})

    def __call__(self, x, y):
        a, b = self.encoder(x), self.encoder(y)
        return {"same": self.out["same"](a * b), "kind": self.out["kind"](a)}


HIDDEN = (2, 4, 5)
NETWORKS: dict[str, Callable[[], Case]] = {
    "mlp": lambda: linen(MLP(), normal(*HIDDEN), train=DROPOUT),
    "highway": lambda: linen(Highway(), normal(*HIDDEN)),
    "maxout": lambda: linen(Maxout(), normal(*HIDDEN)),
    "stop_gradient": lambda: linen(StopGradient(), normal(2, 5), normal(2, 3, seed=1)),
    "branches": lambda: linen(Branches(), normal(2, 5), jnp.asarray(1)),
    "conditional": lambda: plain(
        conditional,
        {"first": (5, 7), "up": (7, 11), "down": (11, 7), "head": (7, 3)},
        normal(2, 5),
        jnp.asarray(True),
    ),
    "static_arguments": lambda: plain(
        static_arguments,
        {"first": (5, 7), "middle": (7, 7), "head": (7, 3)},
        normal(2, 5),
        depth=2,
        activation="tanh",
        train={"depth": 1, "scale": 0.5},
    ),
    "multimodal": lambda: linen(Multimodal(), some_batch()),
    "positions": lambda: linen(Positions(), integers(13, 2, 6)),
    "int8": some_int8,
    "bfloat16": some_bfloat16,
    "complex": some_complex,
    "low_rank": lambda: plain(
        low_rank,
        {
            "left": (5, 3),
            "right": (3, 7),
            "middle": (7, 6),
            "outer": (3, 5),
            "inner": (2, 4),
            "head": (20, 3),
        },
        normal(2, 5),
    ),
    "tied_autoencoder": lambda: plain(
        tied_autoencoder, {"first": (5, 11), "gate": (5, 11), "second": (11, 7)}, normal(2, 5)
    ),
    "bilinear": lambda: plain(
        bilinear,
        {"left": (5, 7), "right": (3, 11), "pairs": (7, 11, 2), "factors": (5, 13)},
        normal(2, 5),
        normal(2, 3, seed=1),
    ),
    "frequencies": lambda: plain(
        kernels_of_frequencies,
        {"first": (5, 7), "gain": (7,), "second": (7, 11), "head": (22, 3)},
        normal(2, 5),
    ),
    "ensemble": lambda: plain(vmapped, {"first": (3, 5, 7), "second": (3, 7, 2)}, normal(2, 5)),
    "energy": lambda: plain(
        energy, {"first": (5, 7), "second": (7, 11), "head": (11, 1)}, normal(2, 5)
    ),
    "custom_gradient": lambda: plain(
        custom_gradient, {"first": (5, 7), "second": (7, 11), "head": (11, 3)}, normal(2, 5)
    ),
    "nnx_resnet": lambda: from_nnx(
        NNXResNet(rngs=nnx.Rngs(0)), normal(2, 3, 3, 3), train=BATCH_NORM
    ),
    "nnx_siamese": lambda: from_nnx(
        NNXSiamese(rngs=nnx.Rngs(0)), normal(2, 5), normal(2, 5, seed=1)
    ),
}
