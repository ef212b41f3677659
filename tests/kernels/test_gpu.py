"""The fused kernel on NVIDIA GPUs: interpreted and lowered without a GPU, and compiled if there is one."""

import functools
import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxneuron
from jaxneuron import MLP, mlp_forward
from jaxneuron._kernels import gpu, xla
from jaxneuron._kernels.gpu.activations import FORMULAS, formula_of
from jaxneuron._math import float64, oracle
from jaxneuron._math.activations import ACTIVATIONS, facts_of, in_kernel
from jaxneuron._names import BY_NAME, resolve
from jaxneuron.testing import _sweeps as sweeps

NEW = pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="the kernel needs jax 0.11")
GPU = pytest.mark.skipif(gpu.missing() is not None, reason=f"{gpu.missing()}")
GPUS = [] if gpu.missing() else jax.local_devices(backend="cuda")
# cr_tanh and cr_sigmoid are left out: on a GPU they have the formulas of tanh and sigmoid.
ELEMENTWISE = [
    *(name for name, facts in ACTIVATIONS.items() if not facts.of_rows and not name.startswith("cr_")),
    *sweeps.VALUES,
]
# Results this small may be 0, because exp(-z) overflows before they are reached.
TINY = {"bfloat16": 2.0**-119, "float16": 2.0**-24}


@pytest.fixture
def hopper(monkeypatch):
    """Makes the package behave as if this process had an H100."""
    monkeypatch.setattr(gpu, "missing", lambda: None)
    monkeypatch.setattr(gpu, "processors", lambda: 132)


def network(widths, activation="relu", final="identity", dtype="bfloat16"):
    rng = np.random.default_rng(0)
    layers = [
        (jnp.asarray(rng.normal(size=(a, b)) / np.sqrt(a), dtype), jnp.asarray(rng.normal(size=b) / 4, dtype))
        for a, b in itertools.pairwise(widths)
    ]
    return MLP(layers, activation=activation, final_activation=final)


def numbers(dtype):
    """Every normal finite number of a 16-bit format: neither 0 nor subnormal numbers."""
    z = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float32)
    return z[np.isfinite(z) & (np.abs(z) >= ml_dtypes.finfo(dtype).smallest_normal)]


def exact_of(function, z):
    with np.errstate(all="ignore"):
        return float64.activation(oracle.in_format(function, "float32"), np.float64(z))[0]


def of_argument(function, z):
    """The error that a sine gets from its rounded argument; 0 for other activations."""
    return 0 if facts_of(function).has_limits else 2.0**-22 * np.abs(z * in_kernel(function)[1][0])


def ulps(function, z, y, dtype):
    """The error of y in ULP, beyond TINY and the error from `of_argument`."""
    info, exact = ml_dtypes.finfo(dtype), exact_of(function, z)
    exponent = np.floor(np.log2(np.maximum(np.abs(exact), float(info.smallest_normal))))
    finite = np.abs(exact) < float(info.max)
    # A sine of a product that overflows is NaN.
    finite &= 2.0**22 * of_argument(function, z) < np.finfo(np.float32).max
    off = np.abs(np.asarray(y, np.float64)[finite] - exact[finite]) - TINY[dtype]
    return (off - np.broadcast_to(of_argument(function, z), z.shape)[finite]) / 2.0 ** (
        exponent[finite] - info.nmant
    )


# --- truth ---


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("function", ELEMENTWISE)
def test_formulas_within_bound_for_every_16_bit_number(function, dtype):
    z = numbers(dtype)
    y = jax.jit(formula_of(resolve(function)))(z).astype(dtype)
    assert ulps(function, z.astype(np.float64), y, dtype).max() <= 0.51


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_formulas_are_right_at_0_infinities_and_nan(function):
    z = np.float32([-np.inf, np.nan, np.inf, 0])
    exact = np.where(np.isinf(z) & facts_of(function).gates, np.maximum(z, 0), exact_of(function, z))
    # a GPU keeps subnormal results
    np.testing.assert_allclose(
        formula_of(resolve(function))(jnp.asarray(z)), exact, rtol=1e-6, atol=2.0**-126
    )


@NEW
def test_the_interpreted_kernel_has_no_races_and_is_within_bound():
    """Every activation, uneven widths and ragged rows, through both kernels: see interpreted.py."""
    command = [sys.executable, "-m", "tests.kernels.interpreted"]
    environment = os.environ | {"NPROC": "32", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_sigmoid_in_a_network_has_the_bits_of_sigmoid(dtype):
    """Networks use its 16-bit form too: they apply it to float32 sums, which don't show the dtype."""
    z = jnp.asarray(numbers(dtype), dtype)
    y = xla.forward([(jnp.ones((1, 1), dtype), None)], [BY_NAME["sigmoid"]], z[:, None])
    assert (y[:, 0] == BY_NAME["sigmoid"](z)).all()


@pytest.mark.parametrize("function", [*ELEMENTWISE, "softmax", "log_softmax"])
def test_xlas_form_for_gpus_within_its_bound(function):
    """XLA's form for GPUs rounds each sum before and after adding its bias."""
    w, b = network((50, 40)).layers[0]
    x = jnp.asarray(np.random.default_rng(1).normal(size=(200, 50)), "bfloat16")
    y = xla.forward([(w, b)], [resolve(function)], x, on_gpu=True)
    x, w, b = (np.asarray(a, np.float64) for a in (x, w, b))
    z, u = x @ w, 2.0**-8
    exact = exact_of(function, z + b)
    z_error = u * (np.abs(z) + np.abs(z + b)) + 52 * 2.0**-24 * (np.abs(x) @ np.abs(w))
    steepest = oracle.STEEPEST.get(function)
    slack = z_error * (steepest(z + b, z_error) if steepest else facts_of(function).slope)
    # XLA may round within its sigmoid too.
    slack += (4 if function == "sigmoid" else 1.1) * u * np.abs(exact) + of_argument(function, z + b)
    assert (np.abs(np.asarray(y, np.float64) - exact) <= 1.01 * slack).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("shape", "units", "sums"), [((50,), 40, "float32"), ((1, 50), 40, "float32"), ((7, 50), 1, "float32"), ((7, 50), 40, None)])  # fmt: skip
def test_xlas_form_for_gpus_rounds_no_product(shape, units, sums, dtype):
    """XLA multiplies a vector element by element, in the sum's dtype: 300 x 300 overflows float16."""
    layers = network((50, units), dtype=dtype).layers
    traced = jax.make_jaxpr(lambda x: xla.forward(layers, [BY_NAME["relu"]], x, on_gpu=True))
    equations = traced(jnp.ones(shape, dtype)).jaxpr.eqns
    (product,) = [eqn for eqn in equations if eqn.primitive.name == "dot_general"]
    assert product.outvars[0].aval.dtype == (sums or dtype)


@GPU
@pytest.mark.parametrize("shape", [(64,), (1, 64), (9, 64)])
def test_products_that_overflow_float16_cancel(shape):
    w = jnp.asarray(np.repeat([[300.0], [-300.0]], 32, axis=0) * np.ones((1, 3)), "float16")
    assert (jaxneuron.affine((w, None), jnp.full(shape, 300.0, "float16")) == 0).all()


# --- laws ---


def test_importing_the_package_imports_no_pallas():
    code = "import sys, jaxneuron; assert 'jax.experimental.pallas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})


@NEW
@pytest.mark.parametrize("widths", [(64, 64, 64), (10, 133, 133, 8), (256, 256, 256)])
def test_kernels_are_lowered_for_cuda(hopper, widths):
    mlp, x = network(widths, "tanh"), jax.ShapeDtypeStruct((1000, widths[0]), jnp.bfloat16)
    assert "mosaic_gpu" in _for_cuda(mlp_forward, mlp, x)


@NEW
@pytest.mark.parametrize(
    "functions", [(*ELEMENTWISE[::2], "softmax"), (*ELEMENTWISE[1::2], "log_softmax")], ids=["even", "odd"]
)
def test_every_activation_is_lowered_for_cuda(hopper, functions):
    x, w = jax.ShapeDtypeStruct((100, 40), jnp.bfloat16), jnp.ones((40, 40), jnp.bfloat16)
    layers, functions = [(w, None)] * len(functions), [resolve(function) for function in functions]
    assert "mosaic_gpu" in _for_cuda(functools.partial(gpu.forward, layers=layers, functions=functions), x)


@NEW
@pytest.mark.parametrize(("widths", "biases"), [((128,) * 6, True), ((16, *(64,) * 23), False)])
def test_the_fullest_shared_memory_is_lowered_for_cuda(hopper, widths, biases):
    """JAX refuses a block that needs too much shared memory. Each array takes a multiple of 1024 bytes."""
    x = jax.ShapeDtypeStruct((100, widths[0]), jnp.bfloat16)
    layers = [(w, b if biases else None) for w, b in network(widths).layers]
    functions = [BY_NAME["relu"]] * (len(layers) - 1) + [BY_NAME["softmax"]]
    assert "mosaic_gpu" in _for_cuda(functools.partial(gpu.forward, layers=layers, functions=functions), x)


@NEW
def test_transformations_are_lowered_for_cuda(hopper):
    mlp, x = network((64, 64, 64)), jnp.ones((3, 100, 64), jnp.bfloat16)
    members = jax.tree.map(lambda a: jnp.stack([a, a, a]), mlp)
    assert "mosaic_gpu" in _for_cuda(jax.vmap(mlp_forward, (None, 0)), mlp, x)
    assert "mosaic_gpu" in _for_cuda(jax.vmap(mlp_forward), members, x)
    with jax.enable_x64(True):
        assert "mosaic_gpu" in _for_cuda(mlp_forward, network((10, 133, 133, 8), "sin"), x[0, :, :10])
    step = lambda h, _: (mlp_forward(mlp, h), None)  # noqa: E731
    assert "mosaic_gpu" in _for_cuda(lambda x: jax.lax.scan(step, x, None, 2)[0], x)
    gradient = jax.grad(lambda x: mlp_forward(mlp, x).astype(jnp.float32).sum())
    assert "mosaic_gpu" not in _for_cuda(gradient, x)


@NEW
@pytest.mark.parametrize("widths", [(64, 64, 64), (10, 133, 133, 8)])
def test_kernels_are_lowered_under_ensure_compile_time_eval(hopper, widths):
    """`evaluate` makes JAX do so, because it must work inside a trace too."""
    mlp, x = network(widths), jax.ShapeDtypeStruct((100, widths[0]), jnp.bfloat16)
    gpu._moved.cache_clear()
    with jax.ensure_compile_time_eval():
        assert gpu._moved() is None
        assert "mosaic_gpu" in _for_cuda(mlp_forward, mlp, x)


def test_exported_programs_do_not_call_the_kernel(hopper):
    mlp, x = network((64, 64, 64)), jax.ShapeDtypeStruct((100, 64), jnp.bfloat16)
    exported = jax.export.export(jax.jit(lambda x: mlp_forward(mlp, x)), platforms=["cuda", "cpu"])(x)
    assert "custom_call" not in exported.mlir_module()


def _for_cuda(function, *arguments):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


# --- refusals ---


@NEW
def test_reason_against_names_what_the_kernel_lacks(hopper, monkeypatch):
    bfloat16 = np.dtype(jnp.bfloat16)

    def because(widths, dtype=bfloat16, function="relu"):
        return gpu.reason_against(widths, dtype, [True] * (len(widths) - 1), [BY_NAME[function]])

    assert because((64, 64, 1)) is None
    assert because((64, 64, 1), np.dtype(np.float32)) == (
        "the fused GPU kernel evaluates bfloat16 and float16, not float32"
    )
    assert because((64, 257, 1)) == "the fused GPU kernel takes up to 256 units a layer, not 257"
    assert because((64, 16, 1)) == "the fused GPU kernel takes layers of 17 units and more, not 16"
    assert because((64, 64, 64), function="gelu") is None
    assert because((64, 65, 64), function="gelu") == (
        "with gelu the fused GPU kernel pays up to 64 units a layer, not 65"
    )
    monkeypatch.delitem(FORMULAS, "elu")  # like an activation that was added without a formula for GPUs
    assert because((64, 64, 64), function="elu") == "the fused GPU kernel has no formula for elu"
    assert because((64, 64)) == "one layer is one product, which XLA computes as fast"
    assert because((256,) * 400) == "399 layers of up to 256 units don't fit into the GPU's shared memory"


def test_missing_names_a_jax_that_is_too_old(monkeypatch):
    gpu.missing.cache_clear()
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    monkeypatch.setattr(jax, "__version__", "0.10.2")
    assert gpu.missing() == "the fused GPU kernel needs jax 0.11 or newer, not 0.10.2"
    gpu.missing.cache_clear()


@NEW
def test_a_pallas_that_has_moved_warns_once(hopper, monkeypatch):
    from jaxneuron._kernels.gpu import resident

    gpu._moved.cache_clear()
    monkeypatch.delattr(resident.plgpu, "kernel")
    with pytest.warns(UserWarning, match="jaxneuron's GPU kernel does not fit jax"):
        assert "does not fit jax" in gpu._moved()
    assert "does not fit jax" in gpu._moved()
    gpu._moved.cache_clear()


# --- with a GPU ---


@GPU
@pytest.mark.parametrize("function", ELEMENTWISE)
def test_the_compiled_kernel_within_its_bound(function):
    """The first layer is the identity, so that the sums of the second layer are 16-bit numbers."""
    for dtype in ("bfloat16", "float16"):
        z, one = numbers(dtype), jnp.eye(64, dtype=dtype)
        rows = jnp.asarray(np.resize(z, (len(z) // 64 + 1, 64)), dtype)
        y = mlp_forward(MLP([(one, None)] * 2, activation="identity", final_activation=function), rows)
        assert ulps(function, np.asarray(rows, np.float64), y, dtype).max() <= 0.6


@GPU
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "widths", [(16, 32, 64), (64, 64, 64), (128, 32, 20), (128, 128, 128), (10, 133, 8), (256, 192, 256)]
)
def test_rows_of_any_number_are_read_and_written_whole(widths, dtype):
    """If the number is not a multiple of 8, the kernel uses the second name of its shared memory."""
    mlp, forward = network(widths, "tanh", dtype=dtype), jax.jit(mlp_forward)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1008, widths[0])), dtype)
    whole = np.asarray(forward(mlp, x))
    for rows in (1, 13, 1003):
        assert np.asarray(forward(mlp, x[:rows])).tobytes() == whole[:rows].tobytes()


@GPU
@pytest.mark.skipif(len(GPUS) < 2, reason="needs two GPUs")
@pytest.mark.parametrize("widths", [(64, 64, 64), (10, 133, 8)])
def test_divided_rows_are_evaluated_without_an_all_gather(widths):
    mlp, x = network(widths, "tanh"), jnp.asarray(np.random.default_rng(0).normal(size=(2006, widths[0])))
    x = x.astype(jnp.bfloat16)
    mesh = jax.sharding.Mesh(GPUS[:2], ("rows",))
    divided = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows")))
    compiled = jax.jit(mlp_forward).lower(mlp, divided).compile()
    assert "all-gather" not in compiled.as_text()
    assert (compiled(mlp, divided) == mlp_forward(mlp, x)).all()


@GPU
def test_rows_with_infinities_have_the_results_of_xla():
    for widths in ((10, 33, 20, 8), (10, 133, 20, 8)):
        mlp = network(widths, "relu", "tanh", "float16")
        x = jnp.asarray(np.random.default_rng(0).normal(size=(9, 10)), "float16")
        x = x.at[0, 0].set(jnp.inf).at[1, 1].set(-jnp.inf).at[2, 2].set(jnp.nan).at[3].set(60000)
        expected = xla.forward(mlp.layers, [BY_NAME["relu"]] * 2 + [BY_NAME["tanh"]], x, on_gpu=False)
        y = np.asarray(mlp_forward(mlp, x), np.float32)
        np.testing.assert_allclose(y, np.asarray(expected, np.float32), 2.0**-6, 2.0**-8)


@GPU
def test_a_row_has_the_same_bits_in_any_batch():
    for widths in ((64, 64, 64), (10, 133, 133, 8)):
        mlp = network(widths, "silu")
        x = jnp.asarray(np.random.default_rng(0).normal(size=(1003, widths[0])), jnp.bfloat16)
        y = mlp_forward(mlp, x)
        for at in (0, 500, 1002):
            assert (mlp_forward(mlp, x[at]) == y[at]).all()
        assert jaxneuron.explain(mlp, x) == f"fused GPU kernel: all {len(widths) - 1} layers in one call"
