"""Every primitive of the installed JAX, decided: carried, run (control), pinned, or without a rule.

A JAX that adds one fails the first test here. Decide it: give it a rule in
`regularizers/primitives`, or name it below with the reason why it needs none.
"""

import json
import subprocess
import sys

import jax
import pytest

# In an interpreter of its own: tests beside these import more modules of JAX, and couple their own.
DECISIONS = """
import json, sys
import jax, jax.experimental.multihost_utils, jax.experimental.pallas, jax.scipy.special
import optax
from flax import linen, nnx
from jax.extend.core import Primitive
from regularizers.primitives import jaxprs
from regularizers.primitives.table import RECORDS
from regularizers.primitives.linear_algebra import PINNED

SPARSE = "jax.experimental.sparse"  # none has a rule: networks do not import it
modules = [
    module
    for name, module in list(sys.modules.items())
    if name.split(".")[0] == "jax" and not name.startswith(SPARSE)
]
values = [value for module in modules for value in list(vars(module).values())]
kinds = {
    "found": [value for value in values if isinstance(value, Primitive)],
    "control": jaxprs.RUNS_JAXPRS,
    "pinned": PINNED,
    "carried": RECORDS.keys() - PINNED.keys(),
}
print(json.dumps({kind: sorted({p.name for p in kinds[kind]}) for kind in kinds}))
"""

CONTROL = """
call_hi_primitive composite cond custom_jvp_call custom_vjp_call custom_vmap_call jit remat2 scan
shard_map while
"""
if jax.__version_info__ < (0, 11):
    CONTROL += "call closed_call"
    NEVER_SEEN = "eval_jaxpr"
else:  # the two calls are one
    CONTROL += "eval_jaxpr"
    NEVER_SEEN = ""

CARRIED = """
abs acos acosh add add_any and approx_top_k argmax argmin asin asinh atan atan2 atanh bessel_i0e
bessel_i1e bitcast_convert_type broadcast_in_dim cbrt ceil cholesky clamp clz complex concatenate
conj conv_general_dilated convert_element_type copy cos cosh cumlogsumexp cummax cummin cumprod
cumsum debug_callback debug_print device_put digamma div dot_general dynamic_slice
dynamic_update_slice eig eigh empty eq eq_to erf erf_inv erfc exp exp2 expm1 fft floor gather ge gt
hessenberg householder_product igamma igamma_grad_a igammac imag integer_pow iota is_finite
layout_constraint le le_to lgamma log log1p log2 logistic lt lt_to lu
lu_pivots_to_permutation max min mul mulhi name ne neg nextafter not one_minus_square
optimization_barrier or pad pmax pmin polygamma polynomial population_count
pow ppermute psum psum_invariant pvary qr ragged_dot_general random_bits random_clone random_fold_in
random_seed random_split random_unwrap random_wrap real reduce_and reduce_max reduce_min reduce_or
reduce_precision reduce_prod reduce_sum reduce_window reduce_window_max reduce_window_min
reduce_window_sum reduce_xor regularized_incomplete_beta rem reshape reshard rev rng_bit_generator
rng_uniform round rsqrt scatter scatter-add scatter-max scatter-min scatter-mul scatter-sub schur
select_and_gather_add select_and_scatter_add select_n shift_left shift_right_arithmetic
shift_right_logical sign sin sinh slice sort split sqrt square squeeze stack stop_gradient sub svd
tan tanh tile top_k transpose triangular_solve tridiagonal unstack xor zeta reduce
sharding_constraint symmetric_product
"""

PINNED_BY_A_RULE = """
all_gather all_to_all axis_index custom_linear_solve random_gamma threefry2x32 tridiagonal_solve
"""

# Pinned by default and reported by name, since nothing that a network traces to has them.
WITHOUT_A_RULE = {
    "collectives in parts, or with results that differ among devices": """
        all_gather_done all_gather_invariant all_gather_reduced all_gather_reduced_start
        all_gather_start all_to_all_done all_to_all_start global_array_to_host_local_array
        host_local_array_to_global_array pbroadcast pbroadcast_done pbroadcast_dynamic
        pbroadcast_start ppermute_done ppermute_start precv preduced psend psum_done
        psum_invariant_start psum_start ragged_all_to_all reduce_scatter reduce_scatter_done
        reduce_scatter_start reduced_vary_cast reduced_vary_cast_p
        unreduced_pmax unreduced_pmin unreduced_psum unreduced_psum_start
        unreduced_reduce_scatter unreduced_reduce_scatter_start vary_unreduced_cast
        vary_unreduced_cast_p
    """,
    "mutable references and the insides of kernels (Pallas)": """
        accum_grad_in_ref addupdate box_get box_set broadcast_to check core_map delay empty_ref
        free_ref freeze get get_global get_variable jaxpr_call log_extend log_read masked_load
        masked_swap mpmd_map multiple_of new_box new_log new_ref new_variable num_programs
        pallas_call pin program_id reciprocal run_scoped run_state semaphore_read semaphore_signal
        semaphore_wait set_variable swap unpin with_memory_space_constraint unreachable
    """,
    "kernels of a library or of the user's own, whose shapes are fixed": """
        call_exported call_hi_primitive_linearized cudnn_fusion
        custom_partitioning dot_product_attention_bwd dot_product_attention_bwd_wrapper
        dot_product_attention_fp8_bwd dot_product_attention_fp8_bwd_wrapper
        dot_product_attention_fp8_fwd dot_product_attention_fp8_fwd_wrapper
        dot_product_attention_fwd dot_product_attention_fwd_wrapper ffi_call scaled_dot
        scaled_matmul scaled_matmul_wrapper
    """,
    "Python callbacks with results, and effects": """
        after_all create_token io_callback pure_callback inspect_sharding
    """,
    "only inside of transformations, never in what they return": f"""
        {NEVER_SEEN} create_linear custom_jvp_call_jaxpr custom_lin dce_sink empty2 from_edtype
        iota_2x32_shape linear_call platform_index relayout remat_opt stage tie to_edtype
        zeros_like dim_as_value dimension_size shape_assertion select_and_scatter
        xla_metadata_call xla_metadata_value
    """,
    "linear algebra by halves, generators of random bits": """
        cholesky_update geqp3 geqrf ormqr philox2x32 philox4x32 threefry4x32
    """,
}


@pytest.fixture(scope="module")
def decisions():
    """Names of the primitives that JAX's modules hold (`found`), and of those that have rules."""
    run = subprocess.run([sys.executable, "-c", DECISIONS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return {kind: set(names) for kind, names in json.loads(run.stdout).items()}


def test_every_primitive_is_decided_once(decisions):
    lists = [CONTROL, CARRIED, PINNED_BY_A_RULE, *WITHOUT_A_RULE.values()]
    names = [name for text in lists for name in text.split()]
    assert sorted(names) == sorted(set(names))
    assert decisions["found"] - set(names) == set()


def test_decisions_are_those_of_the_tables(decisions):
    assert set(CONTROL.split()) == decisions["control"]
    assert set(PINNED_BY_A_RULE.split()) == decisions["pinned"]
    assert set(CARRIED.split()) == decisions["carried"]
