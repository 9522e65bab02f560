"""One case or more per primitive: which axes are tied, free and fixed.

A signature is read like an einsum: a letter is a free width, a number a fixed one, `(a+b)` a
concatenation and `(a*b)` a merge. `a b, b c -> a c` is a matrix product.
"""

import itertools
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import primitives as p
from jax.lax import linalg
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from regularizers.channels.inference import Inference
from regularizers.primitives import axes as ax
from regularizers.primitives import jaxprs
from regularizers.primitives.table import OWN, RECORDS
from regularizers.primitives.terms import atoms, freeze

MESH = Mesh(np.array(jax.devices()[:1]), ("d",))
REPLICATED = NamedSharding(MESH, PartitionSpec())
RAGGED_SUM = lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((1,), (0,)), ((), ())),
    lhs_ragged_dimensions=(1,),
    rhs_group_dimensions=(),
)
POOL = {
    "window_dimensions": (1, 3, 1),
    "window_strides": (1, 2, 1),
    "padding": ((0, 0), (0, 0), (0, 0)),
}
KEY = jax.eval_shape(lambda: jax.random.key(0)).dtype
F32, I32, BOOL, C64 = jnp.float32, jnp.int32, jnp.bool_, jnp.complex64


@dataclass(frozen=True)
class Case:
    """`fn` at `shapes` has `signature`; one dtype stands for all operands."""

    primitive: jaxprs.Primitive
    fn: Callable
    shapes: tuple[tuple[int, ...], ...]
    signature: str
    dtypes: tuple = (F32,)

    @property
    def structs(self):
        dtypes = self.dtypes * len(self.shapes) if len(self.dtypes) == 1 else self.dtypes
        return list(map(jax.ShapeDtypeStruct, self.shapes, dtypes))


def unary(primitive, fn, *dtypes):
    return Case(primitive, fn, ((5, 7),), "a b -> a b", dtypes or (F32,))


def binary(primitive, fn, *dtypes):
    return Case(primitive, fn, ((5, 7), (5, 7)), "a b, a b -> a b", dtypes or (F32,))


def conv(dims=("NHWC", "HWIO", "NHWC"), strides=(1, 1), padding="SAME", **kwargs):
    return partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        dimension_numbers=dims,
        **kwargs,
    )


def dot(contract, batch=((), ())):
    return partial(lax.dot_general, dimension_numbers=(contract, batch))


def gather(collapsed, offset, start, sizes, **kwargs):
    numbers = lax.GatherDimensionNumbers(
        offset_dims=offset, collapsed_slice_dims=collapsed, start_index_map=start, **kwargs
    )
    return partial(lax.gather, dimension_numbers=numbers, slice_sizes=sizes)


def reduce_window(computation, init):
    return lambda x: lax.reduce_window(x, init, computation, (1, 3, 1), (1, 2, 1), "VALID")


ELEMENTWISE = [
    unary(p.abs_p, lax.abs),
    unary(p.acos_p, lax.acos),
    unary(p.acosh_p, lax.acosh),
    unary(p.asin_p, lax.asin),
    unary(p.asinh_p, lax.asinh),
    unary(p.atan_p, lax.atan),
    unary(p.atanh_p, lax.atanh),
    unary(p.bessel_i0e_p, lax.bessel_i0e),
    unary(p.bessel_i1e_p, lax.bessel_i1e),
    unary(p.cbrt_p, lax.cbrt),
    unary(p.ceil_p, lax.ceil),
    unary(p.clz_p, lax.clz, I32),
    unary(p.conj_p, lax.conj, C64),
    unary(p.convert_element_type_p, lambda x: x.astype(I32)),
    unary(jaxprs.copy_p, jnp.copy),
    unary(p.cos_p, lax.cos),
    unary(p.cosh_p, lax.cosh),
    unary(p.device_put_p, jax.device_put),
    unary(p.digamma_p, lax.digamma),
    unary(p.erf_inv_p, lax.erf_inv),
    unary(p.erf_p, lax.erf),
    unary(p.erfc_p, lax.erfc),
    unary(p.exp2_p, lax.exp2),
    unary(p.exp_p, lax.exp),
    unary(p.expm1_p, lax.expm1),
    unary(p.floor_p, lax.floor),
    unary(p.imag_p, lax.imag, C64),
    unary(p.integer_pow_p, lambda x: x**3),
    unary(p.is_finite_p, lax.is_finite),
    unary(p.lgamma_p, lax.lgamma),
    unary(p.log1p_p, lax.log1p),
    unary(p.log_p, lax.log),
    unary(
        jaxprs.layout_constraint_p,
        lambda x: with_layout_constraint(jnp.asarray(x), Layout(major_to_minor=(0, 1))),
    ),
    unary(p.logistic_p, lax.logistic),
    unary(p.name_p, lambda x: checkpoint_name(x, "x")),
    unary(p.neg_p, lax.neg),
    unary(p.not_p, lax.bitwise_not, I32),
    unary(p.population_count_p, lax.population_count, I32),
    unary(p.real_p, lax.real, C64),
    unary(p.reduce_precision_p, lambda x: lax.reduce_precision(x, 8, 7)),
    unary(jaxprs.reshard_p, lambda x: jax.sharding.reshard(x, REPLICATED)),
    unary(p.round_p, lax.round),
    unary(p.rsqrt_p, lax.rsqrt),
    unary(
        p.sharding_constraint_p,
        lambda x: lax.with_sharding_constraint(x, SingleDeviceSharding(jax.devices()[0])),
    ),
    unary(p.sign_p, lax.sign),
    unary(p.sin_p, lax.sin),
    unary(p.sinh_p, lax.sinh),
    unary(p.sqrt_p, lax.sqrt),
    unary(p.square_p, lax.square),
    unary(p.stop_gradient_p, lax.stop_gradient),
    unary(p.tan_p, lax.tan),
    unary(p.tanh_p, lax.tanh),
    binary(p.add_jaxvals_p, p.add_jaxvals_p.bind),
    binary(p.add_p, lax.add),
    binary(p.and_p, lax.bitwise_and, I32),
    binary(p.atan2_p, lax.atan2),
    binary(p.complex_p, lax.complex),
    binary(p.div_p, lax.div),
    binary(p.eq_p, lax.eq),
    binary(p.eq_to_p, p.eq_to_p.bind),
    binary(p.ge_p, lax.ge),
    binary(p.gt_p, lax.gt),
    binary(p.igamma_grad_a_p, lax.igamma_grad_a),
    binary(p.igamma_p, lax.igamma),
    binary(p.igammac_p, lax.igammac),
    binary(p.le_p, lax.le),
    binary(p.le_to_p, p.le_to_p.bind),
    binary(p.lt_p, lax.lt),
    binary(p.lt_to_p, p.lt_to_p.bind),
    binary(p.max_p, lax.max),
    binary(p.min_p, lax.min),
    binary(p.mul_p, lax.mul),
    binary(jaxprs.mulhi_p, lax.mulhi, jnp.uint32),
    binary(p.ne_p, lax.ne),
    binary(p.nextafter_p, lax.nextafter),
    binary(p.or_p, lax.bitwise_or, I32),
    binary(p.polygamma_p, lax.polygamma),
    binary(p.pow_p, lax.pow),
    binary(p.rem_p, lax.rem),
    binary(p.shift_left_p, lax.shift_left, I32),
    binary(p.shift_right_arithmetic_p, lax.shift_right_arithmetic, I32),
    binary(p.shift_right_logical_p, lax.shift_right_logical, I32),
    binary(p.sub_p, lax.sub),
    binary(p.xor_p, lax.bitwise_xor, I32),
    binary(p.zeta_p, lax.zeta),
    Case(p.regularized_incomplete_beta_p, lax.betainc, ((5, 7),) * 3, "a b, a b, a b -> a b"),
    Case(p.select_n_p, lax.select, ((5, 7),) * 3, "a b, a b, a b -> a b", (BOOL, F32, F32)),
    Case(p.select_n_p, lax.select, ((), (5, 7), (5, 7)), ", a b, a b -> a b", (BOOL, F32, F32)),
    Case(jaxprs.clamp_p, lax.clamp, ((5, 7),) * 3, "a b, a b, a b -> a b"),
    Case(jaxprs.clamp_p, lambda x: lax.clamp(0.0, x, 6.0), ((5, 7),), "a b -> a b"),
    # A width of 1 is repeated, and is nobody's width.
    Case(p.add_p, p.add_p.bind, ((5, 7), (1, 7)), "a b, 1 b -> a b"),
    Case(p.mul_p, p.mul_p.bind, ((5, 1), (1, 7)), "a 1, 1 b -> a b"),
    Case(p.add_p, lax.add, ((0, 1), (0, 1)), "0 1, 0 1 -> 0 1"),
    # Operands of several shapes keep their own widths.
    Case(
        jaxprs.optimization_barrier_p,
        lambda x, y: lax.optimization_barrier((x, y)),
        ((5, 7), (7,)),
        "a b, c -> a b, c",
    ),
    Case(p.device_put_p, lambda x, y: jax.device_put((x, y)), ((5, 7), (7,)), "a b, c -> a b, c"),
]

SHAPE = [
    Case(
        p.bitcast_convert_type_p,
        lambda x: lax.bitcast_convert_type(x, I32),
        ((5, 7),),
        "a b -> a b",
    ),
    Case(
        p.bitcast_convert_type_p,
        lambda x: lax.bitcast_convert_type(x, jnp.int8),
        ((5, 7),),
        "5 7 -> 5 7 4",
    ),
    Case(
        p.broadcast_in_dim_p,
        lambda x: lax.broadcast_in_dim(x, (11, 5, 7), (1, 2)),
        ((5, 7),),
        "a b -> c a b",
    ),
    Case(
        p.broadcast_in_dim_p,
        lambda x: lax.broadcast_in_dim(x, (5, 7), (0, 1)),
        ((5, 1),),
        "a 1 -> a b",
    ),
    Case(
        p.concatenate_p,
        lambda *x: lax.concatenate(x, 1),
        ((5, 7), (5, 11), (5, 1)),
        "a b, a c, a 1 -> a (b+c+1)",
    ),
    Case(p.concatenate_p, lambda *x: lax.concatenate(x, 0), ((5, 7), (0, 7)), "a b, 0 b -> a b"),
    Case(p.iota_p, lambda: lax.broadcasted_iota(I32, (5, 7), 1), (), " -> a b"),
    Case(jaxprs.empty_p, lambda: lax.empty((5, 7), F32), (), " -> a b"),
    Case(p.pad_p, lambda x: lax.pad(x, 0.0, ((0, 0, 0), (2, 3, 0))), ((5, 7),), "a b -> a (c+b+d)"),
    Case(p.pad_p, lambda x: lax.pad(x, 0.0, ((0, 0, 1), (0, -2, 0))), ((5, 7),), "5 7 -> 9 5"),
    Case(p.pad_p, lambda x: lax.pad(x, 0.0, ((2, 0, 3),)), ((1,),), "1 -> (a+1)"),
    Case(p.reshape_p, lambda x: x.reshape(5, 77), ((5, 7, 11),), "a b c -> a (b*c)"),
    Case(
        p.reshape_p, lambda x: lax.reshape(x, (7, 55), (1, 0, 2)), ((5, 7, 11),), "a b c -> b (a*c)"
    ),
    Case(p.reshape_p, lambda x: x.reshape(5, 7, 11), ((5, 77),), "a (b*c) -> a b c"),
    Case(p.reshape_p, lambda x: x.reshape(1, 5, 1, 7), ((5, 7, 1),), "a b 1 -> 1 a 1 b"),
    Case(p.reshape_p, lambda x: x.reshape(3, 14), ((6, 7),), "(a*b) c -> a (b*c)"),
    Case(p.reshape_p, lambda x: x.reshape(7, 5), ((5, 7),), "5 7 -> 7 5"),
    Case(p.reshape_p, lambda x: x.reshape(7, 0), ((0, 5),), "0 5 -> 7 0"),
    Case(p.rev_p, lambda x: lax.rev(x, (1,)), ((5, 7),), "a b -> a b reversed"),
    Case(p.slice_p, lambda x: x[:, 2:5], ((5, 11),), "a (b+c+d) -> a c"),
    Case(p.slice_p, lambda x: x[:2], ((5, 11),), "(a+b) c -> a c"),
    Case(p.slice_p, lambda x: x[:, ::2], ((5, 11),), "a 11 -> a 6"),
    Case(p.slice_p, lambda x: lax.slice(x, (0, 3), (5, 3)), ((5, 11),), "a b -> a 0"),
    Case(jaxprs.split_p, lambda x: lax.split(x, (7, 11), 1), ((5, 18),), "a (b+c) -> a b, a c"),
    Case(jaxprs.stack_p, lambda *x: lax.stack(x, 1), ((5, 7), (5, 7)), "a b, a b -> a 2 b"),
    Case(jaxprs.tile_p, lambda x: lax.tile(x, (1, 3)), ((5, 7),), "a b -> a (c*b)"),
    Case(jaxprs.tile_p, lambda x: lax.tile(x, (3, 11)), ((5, 1),), "a 1 -> (b*a) c"),
    Case(jaxprs.unstack_p, lambda x: lax.unstack(x, 1), ((5, 2, 7),), "a 2 b -> a b, a b"),
    Case(p.squeeze_p, lambda x: lax.squeeze(x, (1,)), ((5, 1, 7),), "a 1 b -> a b"),
    Case(p.transpose_p, lambda x: x.transpose(2, 0, 1), ((5, 7, 11),), "a b c -> c a b"),
]

RANDOM = [
    Case(p.random_bits_p, lambda k: jax.random.bits(k, (5, 7)), ((),), " -> a b", (KEY,)),
    Case(
        p.random_bits_p,
        jax.vmap(lambda k: jax.random.bits(k, (7,))),
        ((5,),),
        "a -> a b",
        (KEY,),
    ),
    Case(jaxprs.random_clone_p, jax.random.clone, ((5,),), "a -> a", (KEY,)),
    Case(p.random_fold_in_p, jax.vmap(jax.random.fold_in), ((5,), (5,)), "a, a -> a", (KEY, I32)),
    Case(p.random_seed_p, jax.vmap(jax.random.key), ((5,),), "5 -> 5", (I32,)),
    Case(p.random_split_p, lambda k: jax.random.split(k, 7), ((),), " -> 7", (KEY,)),
    Case(jaxprs.random_unwrap_p, jax.random.key_data, ((5,),), "5 -> 5 2", (KEY,)),
    Case(
        p.rng_bit_generator_p,
        lambda k: lax.rng_bit_generator(k, (5, 7)),
        ((4,),),
        "4 -> 4, a b",
        (jnp.uint32,),
    ),
    Case(p.rng_uniform_p, lambda a, b: lax.rng_uniform(a, b, (5, 7)), ((), ()), ",  -> a b"),
    Case(
        p.random_gamma_p,
        lambda k, a: p.random_gamma_p.bind(k, a, log_space=False),
        ((5,), (5,)),
        "5, 5 -> 5",
        (KEY, F32),
    ),
    Case(p.threefry2x32_p, p.threefry2x32_p.bind, ((5,),) * 4, "5, 5, 5, 5 -> 5, 5", (jnp.uint32,)),
    Case(jaxprs.random_wrap_p, jax.random.wrap_key_data, ((5, 2),), "5 2 -> 5", (jnp.uint32,)),
]

CONTRACTION = [
    Case(p.dot_general_p, dot(((1,), (0,))), ((5, 7), (7, 11)), "a b, b c -> a c"),
    Case(
        p.dot_general_p,
        dot(((3,), (3,)), ((0, 2), (0, 2))),
        ((2, 5, 3, 7), (2, 11, 3, 7)),
        "a b c d, a e c d -> a c b e",
    ),
    Case(p.dot_general_p, dot(((0, 1), (1, 0))), ((5, 7), (7, 5)), "a b, b a -> "),
    Case(
        p.conv_general_dilated_p,
        conv(),
        ((2, 5, 7, 3), (3, 3, 3, 11)),
        "a 5 7 b, 3 3 b c -> a 5 7 c",
    ),
    Case(
        p.conv_general_dilated_p,
        conv(("NCHW", "OIHW", "NCHW"), strides=(2, 2), padding="VALID"),
        ((2, 3, 5, 7), (11, 3, 3, 3)),
        "a b 5 7, c b 3 3 -> a c 2 3",
    ),
    # Depthwise, depthwise with a multiplier, grouped.
    Case(
        p.conv_general_dilated_p,
        conv(feature_group_count=7),
        ((2, 5, 5, 7), (3, 3, 1, 7)),
        "a 5 5 b, 3 3 1 b -> a 5 5 b",
    ),
    Case(
        p.conv_general_dilated_p,
        conv(feature_group_count=7),
        ((2, 5, 5, 7), (3, 3, 1, 21)),
        "a 5 5 b, 3 3 1 (b*c) -> a 5 5 (b*c)",
    ),
    Case(
        p.conv_general_dilated_p,
        conv(feature_group_count=3),
        ((2, 5, 5, 15), (3, 3, 5, 21)),
        "a 5 5 (b*c), 3 3 c (b*d) -> a 5 5 (b*d)",
    ),
    Case(
        p.conv_general_dilated_p,
        conv(batch_group_count=3),
        ((6, 5, 5, 7), (3, 3, 7, 3)),
        "6 5 5 7, 3 3 7 3 -> 2 5 5 3",
    ),
]


CONTRACTION += [
    Case(
        jaxprs.ragged_dot_general_p,
        lax.ragged_dot,
        ((6, 5), (2, 5, 7), (2,)),
        "6 a, 2 a b, 2 -> 6 b",
        (F32, F32, I32),
    ),
    Case(
        jaxprs.ragged_dot_general_p,  # the contracted axis is divided: a product for each part
        lambda x, y, n: lax.ragged_dot_general(x, y, n, RAGGED_SUM),
        ((5, 6), (6, 7), (2,)),
        "5 6, 6 7, 2 -> 2 5 7",
        (F32, F32, I32),
    ),
]

ALGEBRA = [
    Case(p.fft_p, lambda x: lax.fft(x, "FFT", (7,)), ((5, 7),), "a 7 -> a 7", (C64,)),
    Case(p.fft_p, lambda x: lax.fft(x, "RFFT", (8,)), ((5, 8),), "a 8 -> a 5"),
    Case(
        jaxprs.symmetric_product_p,
        lambda a, c: linalg.symmetric_product(a, c, beta=1.0, symmetrize_output=False),
        ((5, 7, 3), (5, 7, 7)),
        "a b c, a b b -> a b b",
    ),
    Case(p.cholesky_p, lambda x: linalg.cholesky(x), ((5, 3, 3),), "a 3 3 -> a 3 3"),
    Case(p.eig_p, lambda x: linalg.eig(x), ((5, 3, 3),), "a 3 3 -> a 3, a 3 3, a 3 3"),
    Case(p.eigh_p, lambda x: linalg.eigh(x), ((5, 3, 3),), "a 3 3 -> a 3 3, a 3"),
    Case(p.hessenberg_p, linalg.hessenberg, ((5, 3, 3),), "a 3 3 -> a 3 3, a 2"),
    Case(
        p.householder_product_p,
        linalg.householder_product,
        ((5, 4, 3), (5, 3)),
        "a 4 3, a 3 -> a 4 3",
    ),
    Case(p.lu_p, linalg.lu, ((5, 4, 3),), "a 4 3 -> a 4 3, a 3, a 4"),
    Case(
        jaxprs.lu_pivots_to_permutation_p,
        lambda x: linalg.lu_pivots_to_permutation(x, 4),
        ((5, 3),),
        "a 3 -> a 4",
        (I32,),
    ),
    Case(p.qr_p, partial(linalg.qr, full_matrices=False), ((5, 4, 3),), "a 4 3 -> a 4 3, a 3 3"),
    Case(p.schur_p, linalg.schur, ((5, 3, 3),), "a 3 3 -> a 3 3, a 3 3"),
    Case(
        p.svd_p,
        partial(linalg.svd, full_matrices=False),
        ((5, 4, 3),),
        "a 4 3 -> a 4 3, a 3, a 3 3",
    ),
    Case(
        p.triangular_solve_p,
        lambda a, b: linalg.triangular_solve(a, b, left_side=True),
        ((5, 3, 3), (5, 3, 2)),
        "a 3 3, a 3 2 -> a 3 2",
    ),
    Case(p.tridiagonal_p, linalg.tridiagonal, ((5, 3, 3),), "a 3 3 -> a 3 3, a 3, a 2, a 2"),
    Case(
        p.tridiagonal_solve_p,
        linalg.tridiagonal_solve,
        ((3,), (3,), (3,), (3, 2)),
        "3, 3, 3, 3 2 -> 3 2",
    ),
    Case(
        p.linear_solve_p,
        lambda b: lax.custom_linear_solve(lambda v: 2 * v, b, lambda mv, v: v / 2),
        ((5, 7),),
        "5 7 -> 5 7",
    ),
]


def on_devices(fn):
    """`fn` on a mesh of one device, where nothing is divided."""
    return lambda *x: jax.shard_map(
        fn, mesh=MESH, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
    )(*x)


DEVICES = [
    Case(p.psum_p, on_devices(lambda x: lax.psum(x, "d")), ((5, 7),), "a b -> a b"),
    Case(p.pmax_p, on_devices(lambda x: lax.pmax(x, "d")), ((5, 7),), "a b -> a b"),
    Case(p.pmin_p, on_devices(lambda x: lax.pmin(x, "d")), ((5, 7),), "a b -> a b"),
    Case(
        jaxprs.psum_invariant_p,
        lambda x: jax.shard_map(
            lambda x: lax.psum(x, "d"),
            mesh=MESH,
            in_specs=PartitionSpec("d"),
            out_specs=PartitionSpec(),
        )(x),
        ((5, 7),),
        "a b -> a b",
    ),
    Case(
        jaxprs.pvary_p,
        lambda x: jax.shard_map(
            lambda x: lax.pcast(x, "d", to="varying"),
            mesh=MESH,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec("d"),
        )(x),
        ((5, 7),),
        "a b -> a b",
    ),
    Case(
        p.ppermute_p, on_devices(lambda x: lax.ppermute(x, "d", [(0, 0)])), ((5, 7),), "a b -> a b"
    ),
    Case(p.all_gather_p, on_devices(lambda x: lax.all_gather(x, "d")), ((5, 7),), "5 7 -> 1 5 7"),
    Case(
        p.all_to_all_p, on_devices(lambda x: lax.all_to_all(x, "d", 0, 1)), ((1, 7),), "1 7 -> 7 1"
    ),
    Case(p.axis_index_p, on_devices(lambda: lax.axis_index("d")), (), " -> "),
    Case(
        jaxprs.debug_callback_p,
        lambda x: (jax.debug.callback(lambda x: None, x), x)[1],
        ((5, 7),),
        "a b -> a b",
    ),
    Case(jaxprs.debug_print_p, lambda x: (jax.debug.print("{}", x), x)[1], ((5, 7),), "a b -> a b"),
]


def cumulative(primitive, fn):
    return Case(primitive, lambda x: fn(x, axis=1), ((5, 7),), "a 7 -> a 7")


REDUCTION = [
    Case(p.reduce_sum_p, lambda x: x.sum(1), ((5, 7, 11),), "a b c -> a c"),
    Case(p.reduce_sum_p, lambda x: x.sum(), ((5, 7),), "a b -> "),
    Case(p.reduce_max_p, lambda x: x.max(1), ((5, 7, 11),), "a 7 b -> a b"),
    Case(p.reduce_min_p, lambda x: x.min((0, 2)), ((5, 7, 11),), "5 a 11 -> a"),
    Case(p.reduce_prod_p, lambda x: x.prod(0), ((5, 7),), "5 a -> a"),
    Case(p.reduce_and_p, lambda x: x.all(0), ((5, 7),), "5 a -> a", (BOOL,)),
    Case(p.reduce_or_p, lambda x: x.any(0), ((5, 7),), "5 a -> a", (BOOL,)),
    Case(
        p.reduce_xor_p,
        lambda x: lax.reduce(x, 0, lax.bitwise_xor, (0,)),
        ((5, 7),),
        "5 a -> a",
        (I32,),
    ),
    Case(
        p.reduce_p,
        lambda x, y: lax.reduce(
            (x, y), (0.0, 0.0), lambda u, v: (u[0] + v[0] * v[1], u[1] * v[1]), (1,)
        ),
        ((5, 7), (5, 7)),
        "a 7, a 7 -> a, a",
    ),
    Case(p.argmax_p, lambda x: x.argmax(1), ((5, 7),), "a 7 -> a"),
    Case(p.argmin_p, lambda x: x.argmin(1), ((5, 7),), "a 7 -> a"),
    Case(
        p.reduce_window_p,
        reduce_window(lambda u, v: u + v * v, 0.0),
        ((5, 11, 7),),
        "a 11 b -> a 5 b",
    ),
    Case(p.reduce_window_sum_p, reduce_window(lax.add, 0.0), ((5, 11, 7),), "a 11 b -> a 5 b"),
    Case(p.reduce_window_max_p, reduce_window(lax.max, -jnp.inf), ((5, 11, 7),), "a 11 b -> a 5 b"),
    Case(p.reduce_window_min_p, reduce_window(lax.min, jnp.inf), ((5, 11, 7),), "a 11 b -> a 5 b"),
    cumulative(p.cumsum_p, lax.cumsum),
    cumulative(p.cumprod_p, lax.cumprod),
    cumulative(p.cummax_p, lax.cummax),
    cumulative(p.cummin_p, lax.cummin),
    cumulative(p.cumlogsumexp_p, lax.cumlogsumexp),
    Case(p.sort_p, lambda x: lax.sort(x, dimension=1), ((5, 7),), "a 7 -> a 7"),
    Case(
        p.sort_p,
        lambda x, y: lax.sort((x, y), dimension=0, num_keys=1),
        ((5, 7), (5, 7)),
        "5 a, 5 a -> 5 a, 5 a",
    ),
    Case(p.top_k_p, lambda x: lax.top_k(x, 3), ((5, 7),), "a 7 -> a 3, a 3"),
    Case(p.approx_top_k_p, lambda x: lax.approx_max_k(x, 3), ((5, 7),), "a 7 -> a 3, a 3"),
    Case(
        p.select_and_scatter_add_p,
        lambda x, y: p.select_and_scatter_add_p.bind(y, x, select_prim=p.ge_p, **POOL),
        ((5, 11, 7), (5, 5, 7)),
        "a 11 b, a 5 b -> a 11 b",
    ),
    Case(
        p.select_and_gather_add_p,
        lambda x, y: p.select_and_gather_add_p.bind(
            x, y, select_prim=p.ge_p, base_dilation=(1, 1, 1), window_dilation=(1, 1, 1), **POOL
        ),
        ((5, 11, 7), (5, 11, 7)),
        "a 11 b, a 11 b -> a 5 b",
    ),
]


def scatter(fn, update_window, inserted, to_operand, **kwargs):
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=update_window,
        inserted_window_dims=inserted,
        scatter_dims_to_operand_dims=to_operand,
        **kwargs,
    )
    return lambda x, i, y: fn(x, i, y, numbers)


ROWS = ((1,), (0,), (0,))  # whole rows of a matrix
SCATTER_TYPES = (F32, I32, F32)

SCATTER = [
    # Added up, a row may go with its index; written over, it may not.
    Case(
        p.scatter_add_p, scatter(lax.scatter_add, *ROWS), ((5, 7), (3, 1), (3, 7)),
        "5 a, b 1, b a -> 5 a", SCATTER_TYPES,
    ),
    Case(
        jaxprs.scatter_sub_p, scatter(lax.scatter_sub, *ROWS), ((5, 7), (3, 1), (3, 7)),
        "5 a, b 1, b a -> 5 a", SCATTER_TYPES,
    ),
    *(
        Case(
            primitive, scatter(fn, *ROWS), ((5, 7), (3, 1), (3, 7)),
            "5 a, 3 1, 3 a -> 5 a", SCATTER_TYPES,
        )
        for primitive, fn in (
            (p.scatter_p, lax.scatter),
            (p.scatter_mul_p, lax.scatter_mul),
            (p.scatter_max_p, lax.scatter_max),
            (p.scatter_min_p, lax.scatter_min),
        )
    ),
    # A stretch of an axis; a batch of scatters.
    Case(
        p.scatter_p, scatter(lax.scatter, (0, 1), (), (1,)), ((5, 7), (1,), (5, 3)),
        "a 7, 1, a 3 -> a 7", SCATTER_TYPES,
    ),
    Case(
        p.scatter_add_p,
        scatter(
            lax.scatter_add, (), (1,), (1,), operand_batching_dims=(0,),
            scatter_indices_batching_dims=(0,),
        ),
        ((5, 7), (5, 3, 1), (5, 3)),
        "a 7, a b 1, a b -> a 7", SCATTER_TYPES,
    ),
]  # fmt: skip

INDEXING = [
    Case(
        p.gather_p,
        gather((0,), (2,), (0,), (1, 7)),
        ((5, 7), (2, 3, 1)),
        "5 a, b c 1 -> b c a",
        (F32, I32),
    ),
    Case(
        p.gather_p,
        gather((), (0, 1), (1,), (5, 3)),
        ((5, 7), (1,)),
        "a 7, 1 -> a 3",
        (F32, I32),
    ),
    Case(
        p.gather_p,
        gather(
            (1,), (), (1,), (1, 1), operand_batching_dims=(0,), start_indices_batching_dims=(0,)
        ),
        ((5, 7), (5, 3, 1)),
        "a 7, a b 1 -> a b",
        (F32, I32),
    ),
    Case(
        p.dynamic_slice_p,
        lambda x, i: lax.dynamic_slice(x, (0, i), (5, 3)),
        ((5, 7), ()),
        "a 7,  -> a 3",
        (F32, I32),
    ),
    Case(
        p.dynamic_update_slice_p,
        lambda x, y, i: lax.dynamic_update_slice(x, y, (0, i)),
        ((5, 7), (5, 3), ()),
        "a 7, a 3,  -> a 7",
        (F32, F32, I32),
    ),
]

CASES = [
    *ELEMENTWISE,
    *SHAPE,
    *RANDOM,
    *CONTRACTION,
    *ALGEBRA,
    *DEVICES,
    *REDUCTION,
    *SCATTER,
    *INDEXING,
]
CASES += [  # what only some of the supported versions have
    case
    for case in (
        unary(jaxprs.log2_p, lambda x: lax.log2(x)),
        unary(jaxprs.one_minus_square_p, lambda x: lax.one_minus_square(x)),
        binary(jaxprs.polynomial_p, lambda x, c: lax.polynomial(x, [c, c])),
    )
    if case.primitive not in jaxprs.STAND_INS
]


def name_of(case):
    return f"{case.primitive.name}: {case.signature}"


every_case = pytest.mark.parametrize("case", CASES, ids=map(name_of, CASES))


@dataclass(frozen=True)
class Inferred:
    primitives: set
    operands: list  # of axes; a free width is a letter
    results: list
    widths: dict

    def __str__(self):
        return f"{spelled(self.operands)} -> {spelled(self.results)}"


def spelled(side):
    return ", ".join(" ".join(map(str, axes)) for axes in side)


def primitives_of(body):
    for step in body.steps:
        yield step.primitive
        for inner in step.bodies:
            yield from primitives_of(inner)


def infer(case):
    """The axes of a case's operands and results, free widths named by letters in order."""
    closed, _ = jaxprs.trace(case.fn, *case.structs)
    inference = Inference()
    operands = [inference.fresh_axes(shape) for shape in case.shapes]
    body = inference.run(closed, operands)
    letters, widths = iter(string.ascii_lowercase), {}
    for term in itertools.chain(*operands, *body.outputs):
        for atom in atoms(term):
            if atom.pin is None and atom.name is None:
                atom.name = next(letters)
                widths[atom.name] = atom.size
    return Inferred(
        primitives=set(primitives_of(body)),
        operands=[tuple(map(freeze, axes)) for axes in operands],
        results=[tuple(map(freeze, axes)) for axes in body.outputs],
        widths=widths,
    )


def test_every_primitive_has_a_case():
    assert {case.primitive for case in CASES} == OWN - jaxprs.STAND_INS


@every_case
def test_signature(case):
    found = infer(case)
    assert case.primitive in found.primitives
    assert str(found).replace(" + ", "+").replace(" x ", "*") == case.signature


@every_case
def test_all_parameters_are_understood(case):
    jaxpr = jax.make_jaxpr(case.fn)(*case.structs).jaxpr
    equations = [eqn for eqn in jaxpr.eqns if eqn.primitive is case.primitive]
    unknown = {name for eqn in equations for name in eqn.params.keys() - understood(case)}
    assert unknown == set(), f"{case.primitive.name}: its record does not say what these mean"


def understood(case):
    return set(RECORDS[case.primitive].params)


def draw(struct, rng):
    """Small values that every function here is defined at, and indices that are in bounds."""
    if struct.dtype == BOOL or jnp.issubdtype(struct.dtype, jnp.integer):
        return rng.integers(0, 2, struct.shape).astype(struct.dtype)
    return rng.uniform(0.1, 0.9, struct.shape).astype(struct.dtype)


def positions(axes, name, channel, widths):
    """Bool [shape]: where channel `channel` of group `name` is, on any of the axes."""
    alive = {other: np.ones(width, bool) for other, width in widths.items()}
    alive[name][channel] = False
    keep = [ax.alive_positions(axis, alive) for axis in axes]
    return ~reduce(np.logical_and.outer, keep, np.asarray(True))


PERTURBED = [case for case in CASES if case not in RANDOM and case.shapes]


@pytest.mark.parametrize("case", PERTURBED, ids=map(name_of, PERTURBED))
def test_channel_reaches_only_its_own_group(case, rng):
    """Brute force: where a result has a width, changing a channel of it shows in that channel."""
    found = infer(case)
    values = [draw(struct, rng) for struct in case.structs]
    before = jax.tree.leaves(case.fn(*values))
    for name, width in found.widths.items():
        for channel in {0, width - 1}:
            changed = []
            for value, axes in zip(values, found.operands, strict=True):
                other = draw(jax.ShapeDtypeStruct(value.shape, value.dtype), rng)
                changed.append(np.where(positions(axes, name, channel, found.widths), other, value))
            after = jax.tree.leaves(case.fn(*changed))
            for old, new, axes in zip(before, after, found.results, strict=True):
                if any(name in ax.groups_of(axis) for axis in axes):
                    elsewhere = ~positions(axes, name, channel, found.widths)
                    # Not bit for bit: betainc iterates until all elements have converged.
                    np.testing.assert_allclose(old[elsewhere], new[elsewhere], rtol=1e-5)
