"""The programs that a calibration times: short chains of layers over a designed set of shapes.

A kernel inside a network does not cost what it costs when called alone. So every program runs
several, with weights of their own: chains of one layer and of many tell the overhead of a call from
that of a kernel, and mixtures (batch norm, residual sums, attention) show what a compiler makes of
neighbours. All arrays are arguments: nothing can be folded into a constant.
"""

from __future__ import annotations

from regularizers.calibration.layers import (
    Layer,
    Program,
    attention,
    batch_norm,
    conv,
    dense,
    flatten,
    gelu,
    layer_norm,
    mean,
    pool,
    relu,
    relu6,
    residual,
    silu,
    softmax,
    tanh,
    towers,
    transposed_conv,
)

# ---- The designed set


def designed() -> tuple[Program, ...]:
    """The programs of a calibration, in an order in which families alternate."""
    families = (
        _convolutions(),
        _normed(),
        _depthwise(),
        _dense(),
        _transformers(),
        _towers(),
        _others(),
    )
    ordered: list[tuple[float, Program]] = []
    for family in families:
        ordered += [((k + 0.5) / len(family), program) for k, program in enumerate(family)]
    return tuple(program for _, program in sorted(ordered, key=lambda pair: pair[0]))


def _chain(name: str, shape: tuple[int, ...], *layers: Layer) -> Program:
    return Program(name=name, layers=layers, shape=shape)


def _convolutions() -> list[Program]:
    """Bare convolutions and relu: batch, map side, channels there and back, kernel side, pairs.

    Zero pairs stand for one convolution, there only.
    """
    table = (
        (1, 32, 3, 16, 3, 0), (1, 32, 8, 8, 3, 2), (1, 16, 16, 16, 3, 2), (1, 16, 32, 32, 3, 1),
        (1, 16, 32, 32, 3, 3), (1, 8, 64, 64, 3, 2), (1, 8, 48, 28, 3, 2), (1, 4, 128, 128, 3, 1),
        (1, 4, 256, 256, 3, 1), (1, 2, 256, 200, 3, 1), (1, 32, 16, 12, 5, 1), (1, 8, 32, 40, 5, 1),
        (1, 32, 3, 64, 7, 0), (1, 32, 16, 16, 1, 2), (1, 16, 64, 64, 1, 2), (1, 8, 96, 24, 1, 3),
        (1, 8, 128, 512, 1, 1), (1, 4, 512, 128, 1, 2), (1, 4, 160, 960, 1, 1),
        (1, 2, 320, 1280, 1, 1), (8, 32, 3, 16, 3, 0), (8, 16, 16, 16, 3, 2), (8, 16, 24, 36, 3, 1),
        (8, 16, 64, 64, 3, 1), (8, 8, 64, 64, 3, 1), (8, 8, 32, 32, 3, 3), (8, 4, 128, 128, 3, 1),
        (8, 4, 64, 52, 3, 2), (8, 2, 64, 64, 3, 1), (8, 16, 8, 12, 5, 1), (8, 32, 3, 32, 3, 0),
        (8, 32, 16, 16, 1, 1), (8, 16, 32, 32, 1, 2), (8, 16, 96, 16, 1, 1), (8, 8, 64, 256, 1, 1),
        (8, 4, 256, 256, 1, 1), (8, 4, 96, 576, 1, 1), (8, 2, 512, 128, 1, 2),
        (4, 16, 40, 40, 3, 1), (2, 32, 32, 32, 3, 1), (1, 32, 3, 32, 3, 0), (1, 32, 3, 24, 3, 0),
        (8, 32, 3, 64, 3, 0),
        (1, 16, 17, 23, 3, 2), (8, 8, 30, 50, 3, 1), (1, 8, 45, 37, 1, 3), (8, 8, 21, 75, 1, 2),
        (2, 8, 33, 65, 3, 1), (1, 4, 256, 256, 3, 3), (1, 8, 256, 192, 3, 2),
        (1, 2, 512, 1024, 1, 3), (1, 16, 48, 48, 3, 2), (1, 32, 24, 24, 3, 1),
        (1, 16, 96, 48, 3, 1),
    )  # fmt: skip
    return [
        _chain(
            f"conv {b}x{side}x{side} {c}-{d} {k}x{k} x{pairs}",
            (b, side, side, c),
            *((conv(d, k), relu, conv(c, k), relu) * pairs or (conv(d, k), relu)),
        )
        for b, side, c, d, k, pairs in table
    ]


def _normed() -> list[Program]:
    """Residual blocks with batch norm: batch, map side, channels, stride, blocks."""
    table = (
        (1, 32, 16, 1, 1), (1, 16, 32, 1, 2), (1, 16, 16, 2, 1), (1, 8, 64, 1, 2), (1, 8, 40, 2, 1),
        (1, 4, 128, 1, 1), (1, 32, 8, 1, 2), (1, 4, 24, 1, 3), (8, 32, 16, 1, 1), (8, 16, 32, 1, 1),
        (8, 16, 32, 2, 1), (8, 8, 64, 1, 1), (8, 8, 20, 1, 2), (8, 4, 96, 1, 1), (8, 16, 8, 2, 2),
    )  # fmt: skip
    programs = []
    for b, side, c, stride, blocks in table:
        block = residual(conv(c, 3), batch_norm, relu, conv(c, 3), batch_norm)
        first = (conv(c, 3, stride), batch_norm, relu)
        programs.append(
            _chain(
                f"residual {b}x{side}x{side} {c} stride {stride} x{blocks}",
                (b, side, side, c // stride),
                *first,
                *(block, relu) * blocks,
            )
        )
    for b, side, c, d in ((1, 8, 256, 64), (1, 16, 64, 32), (8, 8, 128, 32), (8, 4, 256, 64)):
        body = (
            *(conv(d, 1), batch_norm, relu, conv(d, 3), batch_norm, relu),
            *(conv(c, 1), batch_norm),
        )
        programs.append(
            _chain(
                f"bottleneck {b}x{side}x{side} {c}-{d}", (b, side, side, c), residual(*body), relu
            )
        )
    return programs


def _depthwise() -> list[Program]:
    """Inverted residuals: batch, map side, channels, expansion, kernel side, stride."""
    table = (
        (1, 16, 16, 1, 3, 1), (1, 16, 16, 6, 3, 1), (1, 16, 24, 6, 3, 2), (1, 8, 32, 6, 3, 1),
        (1, 8, 32, 3, 5, 1), (1, 4, 64, 6, 3, 1), (1, 4, 96, 6, 3, 2), (1, 2, 160, 6, 3, 1),
        (1, 1, 160, 6, 3, 1), (1, 32, 8, 1, 3, 1), (8, 16, 8, 1, 3, 1), (8, 16, 16, 3, 3, 2),
        (8, 8, 24, 6, 3, 1), (8, 4, 48, 6, 3, 1), (8, 2, 96, 6, 3, 1), (8, 1, 96, 6, 3, 1),
        (8, 4, 32, 3, 5, 1),
    )  # fmt: skip
    programs = []
    for b, side, c, expansion, k, stride in table:
        wide = c * expansion
        body = (
            *(conv(wide, 1), batch_norm, relu6, conv(wide, k, stride, 0), batch_norm, relu6),
            *(conv(c, 1), batch_norm),
        )
        programs.append(
            _chain(
                f"depthwise {b}x{side}x{side} {c}x{expansion} {k}x{k} stride {stride}",
                (b, side, side, c),
                *body if stride > 1 else (residual(*body), residual(*body)),
            )
        )
    programs += [
        _chain(
            f"bare depthwise {b}x{side}x{side} {c} {k}x{k}",
            (b, side, side, c),
            *(conv(c, k, 1, 0), relu6) * 2,
        )
        for b, side, c, k in (
            *((1, 8, 64, 3), (8, 8, 32, 5), (1, 4, 256, 3), (1, 16, 16, 3), (1, 16, 16, 5)),
            *((8, 16, 8, 7), (1, 16, 24, 7)),
        )
    ]
    programs += [
        _chain(f"multiplied depthwise {b}x{side}x{side} {c} {k}x{k}", (b, side, side, 3), stem)
        for b, side, c, k in ((1, 32, 12, 7), (8, 16, 15, 5), (8, 32, 24, 5), (1, 32, 24, 7))
        for stem in (conv(c, k, 2, 0),)
    ]
    return programs


def _dense() -> list[Program]:
    """Dense layers there and back: rows, channels, hidden channels, pairs."""
    table = (
        (1, 64, 64, 3), (1, 256, 256, 1), (1, 784, 300, 1), (1, 1024, 1024, 1), (1, 3072, 128, 1),
        (1, 100, 300, 2), (8, 64, 64, 3), (8, 64, 256, 1), (8, 256, 256, 2), (8, 784, 300, 1),
        (8, 1024, 1024, 1), (8, 3072, 100, 1), (17, 64, 256, 1), (17, 192, 192, 2),
        (40, 100, 60, 2), (65, 128, 512, 1), (136, 96, 96, 2), (136, 192, 768, 1),
        (520, 64, 64, 2), (520, 128, 300, 1),
        (1, 9216, 256, 1), (17, 768, 768, 2), (1, 1024, 512, 4), (8, 1536, 512, 2), (65, 75, 50, 2),
    )  # fmt: skip
    programs = []
    for i, (rows, c, d, pairs) in enumerate(table):
        act = gelu if i % 3 == 2 else relu
        programs.append(
            _chain(
                f"dense {rows} {c}-{d} x{pairs} {'gelu' if act is gelu else 'relu'}",
                (rows, c),
                *(dense(d), act, dense(c), act) * pairs,
            )
        )
    return programs


def _transformers() -> list[Program]:
    """Blocks on tokens: batch, tokens, channels, heads, which parts."""
    table = (
        (1, 17, 64, 4, "a"), (1, 17, 64, 4, "am"), (1, 17, 192, 3, "am"), (1, 37, 96, 6, "a"),
        (1, 65, 64, 4, "am"), (1, 65, 192, 3, "a"), (1, 65, 128, 8, "n"), (1, 145, 64, 2, "a"),
        (8, 17, 64, 4, "a"), (8, 17, 128, 4, "am"), (8, 37, 64, 2, "a"), (8, 65, 64, 4, "am"),
        (8, 65, 96, 3, "a"), (8, 65, 64, 4, "n"), (8, 17, 192, 4, "m"), (1, 65, 128, 4, "m"),
        (1, 17, 256, 4, "amam"), (1, 37, 192, 6, "mmm"),
    )  # fmt: skip
    programs = []
    for b, tokens, c, heads, parts in table:
        layers: list[Layer] = []
        for part in parts:
            if part == "a":
                layers.append(residual(layer_norm, attention(heads)))
            elif part == "m":
                layers.append(residual(layer_norm, dense(4 * c), gelu, dense(c)))
            else:
                layers += [residual(layer_norm, dense(c))] * 3
        programs.append(_chain(f"tokens {b}x{tokens} {c} {heads} {parts}", (b, tokens, c), *layers))
    return programs


def _towers() -> list[Program]:
    """Concatenated towers and densely connected layers: batch, map side, channels, features."""
    programs = []
    for b, side, c, d in (
        *((1, 16, 32, 8), (1, 8, 64, 24), (1, 4, 96, 32), (1, 16, 64, 16)),
        *((8, 8, 48, 24), (8, 16, 32, 16), (8, 4, 128, 32)),
    ):
        block = towers(
            (conv(d, 1), batch_norm, relu),
            (conv(d // 2, 1), batch_norm, relu, conv(d, 3), batch_norm, relu),
            (pool("avg", 3, 1), conv(d, 1), batch_norm, relu),
        )
        programs.append(
            _chain(f"towers {b}x{side}x{side} {c}-{d}", (b, side, side, c), block, block)
        )
    for b, side, c in ((1, 8, 64), (8, 8, 32), (1, 16, 16), (8, 4, 96)):
        grow = towers((), (conv(16, 3), relu))
        programs.append(_chain(f"grow {b}x{side}x{side} {c}", (b, side, side, c), *(grow,) * 3))
    return programs


def _others() -> list[Program]:
    """Pooling, means, heads, elementwise functions; grouped and transposed convolutions."""
    programs = []
    for b, side, c, kind, k, stride in (
        (1, 16, 16, "max", 3, 1), (1, 32, 16, "max", 2, 2), (1, 16, 64, "max", 3, 2),
        (8, 16, 32, "max", 2, 2), (8, 8, 96, "max", 3, 1), (1, 8, 64, "avg", 3, 1),
        (8, 16, 16, "avg", 3, 1), (8, 8, 64, "avg", 2, 2),
    ):  # fmt: skip
        repeats = 1 if stride > 1 else 2
        programs.append(
            _chain(
                f"pool {b}x{side}x{side} {c} {kind} {k}x{k} stride {stride}",
                (b, side, side, c),
                *(conv(c, 1), pool(kind, k, stride)) * repeats,
            )
        )
    for b, side, c in ((1, 8, 64), (1, 4, 512), (8, 8, 128), (8, 16, 32), (8, 4, 320)):
        programs.append(_chain(f"head {b}x{side}x{side} {c}", (b, side, side, c), mean, dense(10)))
    for b, side, c in ((1, 8, 64), (8, 8, 32), (8, 4, 128)):
        programs.append(
            _chain(
                f"flat head {b}x{side}x{side} {c}",
                (b, side, side, c),
                *(flatten, dense(128), relu, dense(10)),
            )
        )
    for name, act in (("silu", silu), ("tanh", tanh), ("softmax", softmax), ("relu", relu)):
        for rows, c in ((64, 64), (1024, 96)):
            programs.append(
                _chain(f"{name} {rows} {c}", (rows, c), dense(c), act, dense(c), act, dense(c))
            )
    for b, side, c, groups in ((1, 8, 64, 4), (8, 8, 64, 8), (1, 16, 32, 2)):
        programs.append(
            _chain(
                f"grouped {b}x{side}x{side} {c} by {groups}",
                (b, side, side, c),
                *(conv(c, 3, 1, groups), relu) * 2,
            )
        )
    for b, side, c in ((1, 8, 32), (8, 8, 32), (1, 4, 96)):
        programs.append(
            _chain(
                f"transposed {b}x{side}x{side} {c}", (b, side, side, c), transposed_conv(c, 3), relu
            )
        )
    return programs
