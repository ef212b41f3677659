"""The activations are within their error bounds. `python -m bench.accuracy` tests every float32 number."""

import hashlib
import inspect
import math
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxneuron
from jaxneuron import Sin
from jaxneuron._kernels import library, primitive
from jaxneuron._math import correct, oracle
from jaxneuron._math.activations import facts_of
from jaxneuron._math.formats import FLOAT32, FLOAT64, LARGE_SINE
from jaxneuron._names import BY_NAME, resolve
from jaxneuron.testing import _sweeps as sweeps
from jaxneuron.testing import assert_bounded, assert_monotone
from tests.make_polynomials import polynomials

FUNCTIONS = (*sweeps.FUNCTIONS, *sweeps.VALUES)
MONOTONE = [function for function in FUNCTIONS if facts_of(function).rises]
# Inputs of sigmoid that are hard to round. The sigmoid of the first is within 2^-30 ULP of a midpoint of two
# floats. That of 3 * 2^-23 is so close to a midpoint that float64 cannot tell them apart. Then come zeros,
# inputs with subnormal results or that are subnormal themselves, and inputs where the result becomes 0 or 1.
HARD = np.float32([
    -0.0011178852, 3 * 2.0**-23, -3 * 2.0**-24, 5 * 2.0**-22, 2.0**-24, -(2.0**-25), 0, -0.0, 1e-40, -1e-45,
    -87.33654, -87.33655, -88, -100, -103.97, -103.973, -104, 17.328678, 17.328680, 3e38, -3e38,
])  # fmt: skip


SETS = () if library.missing() else library.instruction_sets()
# The ways to compute an activation: XLA, and the fused kernel with the first and the last instruction set.
WAYS = ("xla", *dict.fromkeys((*SETS[:1], *SETS[-1:])))


def computed_by(way, function):
    """Returns the activation as a function of a vector. The kernel evaluates neurons with one weight of 1."""
    if way == "xla":
        return jax.jit(resolve(function))

    @jax.jit
    def call(z):
        one = jnp.ones((1, 1), z.dtype)
        return primitive.forward([(one, None)], [resolve(function)], z[:, None], SETS.index(way))[:, 0]

    return call


def strided():
    """Returns every 3989th float32 number, of all exponents and both signs, and HARD, in increasing order."""
    bits = np.arange(0, 0x7F800000, 3989, dtype=np.uint32).view(np.float32)
    return np.unique(np.concatenate([-bits, bits, HARD]))


def around(points, count, dtype):
    """Returns `count` neighbours on each side of each of `points`, none of which is 0."""
    kind = np.dtype(f"i{np.dtype(dtype).itemsize}")
    bits = np.array(points, dtype).view(kind)[:, None] + np.arange(-count, count).astype(kind)
    return np.sort(bits.view(dtype), axis=1)


def scores(function, dtype, z, calls):
    """Returns the score of each call. All share the exact results, which take longer than the calls."""
    found = sweeps.score(
        function, dtype, z, {way: lambda z, f=f: np.asarray(f(z)) for way, f in calls.items()}
    )
    return {way: each for way, (each, _) in found.items()}


def score(function, dtype, z, call=None):
    return scores(function, dtype, z, {"": call or jax.jit(resolve(function))})[""]


def scores_by_every_way(function, dtype, z):
    return scores(function, dtype, z, {way: computed_by(way, function) for way in WAYS}).items()


# --- truth ---


def swept(function, z):
    """Returns the inputs; for a sine only those for which it promises its error bound."""
    if "sin" not in (function, getattr(function, "family", "")):
        return z
    (frequency,) = facts_of(function).parameters if function == "sin" else function.parameters
    return z[np.abs(z.astype(np.float64) * frequency) <= LARGE_SINE]


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_float32_within_bound_over_all_exponents(function):
    z = swept(function, strided() if isinstance(function, str) else strided()[::8])
    for way, found in scores_by_every_way(function, "float32", z):
        assert found.ulps <= facts_of(function).ulp[0], way
        assert (found.falls, found.outside) == (0, 0), way
        if function in ("cr_sigmoid", "cr_tanh"):
            assert found.nearest == found.inputs, way
        if function in ("sigmoid", "cr_sigmoid", "tanh", "cr_tanh"):
            assert found.flushed == 0, way


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_float64_within_bound_over_all_exponents(function):
    with jax.enable_x64(True):
        z = swept(function, sweeps.sample64(7000)[:: 3 if isinstance(function, str) else 8])
        for way, found in scores_by_every_way(function, "float64", z):
            assert found.ulps <= facts_of(function).ulp[1], way
            assert found.outside == 0, way


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_every_16_bit_number_within_bound(function, dtype):
    for stretch in sweeps.blocks(dtype, 1):
        for way, found in scores_by_every_way(
            function, dtype, swept(function, sweeps.block(dtype, *stretch))
        ):
            # The error in float32 and the rounding to 16 bits. Products that nearly underflow may lose bits.
            assert found.ulps <= (0.5 if facts_of(function).nearest16 else 0.6), way
            assert (found.falls, found.outside) == (0, 0), way
            if facts_of(function).nearest16:
                assert found.nearest + found.flushed == found.inputs, way
                # The kernel's bfloat16 sums treat subnormal numbers as 0: there are 127 of each sign.
                assert found.flushed <= (127 if dtype == "bfloat16" else 0), way


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("function", ["sin", Sin(30.0), Sin(-0.37)], ids=str)
def test_sines_of_large_numbers_within_1_ulp(function, way):
    rng = np.random.default_rng(0)
    z = np.ldexp(rng.uniform(0.5, 1, 2000), rng.integers(17, 120, 2000)) * rng.choice([-1, 1], 2000)
    found = scores(function, "float32", np.sort(z.astype(np.float32)), {way: computed_by(way, function)})[way]
    assert found.ulps <= 1


@pytest.mark.parametrize("units", [1, 2, 7, 1000])
@pytest.mark.parametrize("way", WAYS)
def test_log_softmax_within_its_bound(units, way):
    rng = np.random.default_rng(units)
    z = (rng.normal(size=(20, units)) * rng.choice([0.1, 3, 25, 1e4], (20, 1)) + 33.7).astype(np.float32)
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            mlp = [(jnp.eye(units, dtype=dtype), None)], [jaxneuron.log_softmax]
            x = jnp.asarray(z, dtype)
            y = np.asarray(mlp[1][0](x) if way == "xla" else primitive.forward(*mlp, x, SETS.index(way)))
        wide = z.astype(object)
        greatest = wide.max(-1, keepdims=True)
        e = np.vectorize(oracle.MP.exp, otypes=[object])(wide - greatest)
        log = np.vectorize(oracle.MP.log, otypes=[object])(e.sum(-1, keepdims=True))
        exact = ((wide - greatest) - log).astype(np.float64)
        u = oracle.U[dtype]
        assert (np.abs(y - exact) <= (units + 6) * u + 4 * u * np.abs(exact) + 2.0**-52 * np.abs(exact)).all()


@pytest.mark.parametrize("units", [1, 2, 7, 1000])
def test_softmax_within_its_relative_bound(units):
    rng = np.random.default_rng(units)
    z = (rng.normal(size=(20, units)) * rng.choice([0.1, 3, 25], (20, 1)) + 33.7).astype(np.float32)
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            y = np.asarray(jaxneuron.softmax(z.astype(dtype)))
        e = np.vectorize(oracle.MP.exp, otypes=[object])(
            z.astype(object) - z.max(-1, keepdims=True).astype(object)
        )
        exact = (e / e.sum(-1, keepdims=True)).astype(np.float64)
        u = oracle.U[dtype]
        np.testing.assert_array_less(
            np.abs(y - exact), exact * ((units + 4) * u + 2.0**-52) + 2 * oracle.SMALLEST_NORMAL[dtype]
        )


def test_the_polynomials_equal_those_by_mpmath():
    for f in (FLOAT32, FLOAT64):
        for name, coefficients in polynomials(f).items():
            assert (np.array(getattr(f, name), f.number) == coefficients).all(), name


def test_ln2_is_exact_in_two_parts():
    for f, exponent_bits in ((FLOAT32, 8), (FLOAT64, 11)):  # bits of the largest exponent
        first, rest = f.ln2
        assert first * 2.0 ** (f.fraction_bits + 1 - exponent_bits) % 1 == 0
        assert abs(oracle.MP.log(2) - first - rest) < first * 2.0 ** -(f.fraction_bits + 14)


# --- laws ---


@pytest.mark.parametrize("function", MONOTONE, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_monotone_between_neighbours(function, dtype):
    f, rng = resolve(function), np.random.default_rng(0)
    points = [p for p in sweeps.EDGES if abs(p) < (103 if dtype == "float32" else 745)]
    points = np.concatenate([points, rng.choice([-1, 1], 200) * 2.0 ** rng.uniform(-12, 5, 200)])
    with jax.enable_x64(dtype == "float64"):
        for window in around(points, 1000, dtype)[:: 1 if dtype == "float32" else 8]:
            assert_monotone(f, over=window)


def test_results_stay_in_their_closed_interval():
    for function, (low, high) in {
        "sigmoid": (0, 1),
        "cr_sigmoid": (0, 1),
        "tanh": (-1, 1),
        "cr_tanh": (-1, 1),
    }.items():
        assert_bounded(BY_NAME[function], low, high, over=strided())


# --- the same bits ---


def block():
    """Returns a fixed block of float32 numbers, some 10,000 of them, HARD included."""
    z = np.random.default_rng(0).permuted(np.concatenate([strided()[::107], HARD]))
    return z[: len(z) // 8 * 8]


def digest(y):
    return hashlib.sha256(np.asarray(y).tobytes()).hexdigest()


def outputs_on_the_block(function):
    """Yields the outputs of cr_sigmoid or cr_tanh on the block, for every way to call it."""
    f, z = getattr(jaxneuron, function), block()
    wide = z.reshape(-1, 8)
    with jax.disable_jit():
        yield "eager", f(z)
    yield "jit", jax.jit(f)(z)
    yield "vmap", jax.vmap(f)(wide)
    kept = (np.abs(wide) < 1e30) & (np.abs(wide) > 2e-38)  # a product with 1 keeps these numbers
    after = jax.jit(lambda z, w: f(jnp.matmul(z, w, precision="highest")))
    product = after(np.where(kept, wide, 0), np.eye(8, dtype=np.float32))
    yield "after a matmul", np.where(kept, product, f(wide))
    for length in (1, 3, 7, 8, 17, 1000):
        parts = [jax.jit(f)(z[i : i + length]) for i in range(0, min(len(z), 40 * length), length)]
        yield f"lengths of {length}", np.concatenate([*parts, f(z[min(len(z), 40 * length) :])])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_every_instruction_set_with_fma_gives_the_same_bits(function, dtype):
    with jax.enable_x64(dtype == "float64"):
        z = strided()[::7] if dtype == "float32" else sweeps.sample64(7000)
        found = {way: digest(computed_by(way, function)(z)) for way in SETS if way != "baseline"}
        found |= (
            {"xla": digest(computed_by("xla", function)(z))}
            if found and function in ("cr_sigmoid", "cr_tanh") and dtype == "float32"
            else {}
        )
    assert len(set(found.values())) <= 1, found


@pytest.mark.parametrize("function", ["cr_sigmoid", "cr_tanh"])
def test_every_way_to_call_gives_the_same_bits(function):
    found = {way: digest(y) for way, y in outputs_on_the_block(function)}
    assert len(set(found.values())) == 1, found


OTHER_MACHINE = """
import numpy as np
from tests.test_numerics import *
print(*(digest(getattr(jaxneuron, f)(block())) for f in ("cr_sigmoid", "cr_tanh")))
for function in (*sweeps.FUNCTIONS, *sweeps.VALUES[::3]):
    found = score(function, "float32", swept(function, strided()[::16]))
    assert found.ulps <= facts_of(function).ulp[0], (function, found)
    assert (found.falls, found.outside) == (0, 0)
"""


@pytest.mark.parametrize("isa", ["AVX2", "AVX"])  # CPUs with FMA, and without
def test_cpus_without_avx512_give_the_same_bits_and_bounds(isa):
    done = subprocess.run(
        [sys.executable, "-c", OTHER_MACHINE], capture_output=True, text=True, check=False,
        env={**os.environ, "XLA_FLAGS": f"--xla_cpu_max_isa={isa}", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [digest(getattr(jaxneuron, f)(block())) for f in ("cr_sigmoid", "cr_tanh")]


# --- errors that the sweeps above must find ---

MUTANTS = {
    "no cubic term near 0": ("(1 - x * x * (1 / 12 - x * x / 120))", "1"),
    "1/2 added before rounding": ("0.5 + ulp * jnp.round(difference / ulp)", "0.5 + difference"),
    "subnormal results flushed": ("jnp.where(x < -FLOAT32.normal, tiny, y.astype(jnp.float32))", "y.astype(jnp.float32)"),
    "exp of float32": ("c / ((1 + (r + rest)) + c)", "1 / (1 + jnp.exp(jnp.abs(z)).astype(jnp.float64))"),
    "computed in float32": ("x = z.astype(jnp.float64)", "x = jax.nn.sigmoid(z).astype(jnp.float64); return x.astype(jnp.float32)"),
}  # fmt: skip


@pytest.mark.cpu  # on a device that keeps subnormal numbers one mutant has no error
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_sweep_finds_every_mutant(mutant):
    source, (old, new) = inspect.getsource(correct), MUTANTS[mutant]
    assert source.count(old) == 1
    module = types.ModuleType("mutant")
    exec(source.replace(old, new), module.__dict__)
    found = score("cr_sigmoid", "float32", strided(), jax.jit(module.cr_sigmoid.fun))
    assert found.nearest < found.inputs


def test_the_sweep_counts_every_kind_of_error():
    z = np.float32([-2, -1, 1, 2])
    exact = 1 / (1 + np.exp(-z.astype(np.float64)))
    good = exact.astype(np.float32)

    def found(y):
        return score("sigmoid", "float32", z, lambda _: np.asarray(y, np.float32))

    assert found(good)._replace(ulps=0, at=0) == (4, 0, 0, 4, 0, 0, 0)
    assert found(good).ulps <= 0.5
    assert found([good[0], good[1], 0, 2.0])[3:] == (2, 1, 1, 1)
    off = found([good[0], good[1] + 8 * 2.0**-26, *good[2:]])  # a ULP of sigmoid(-1) is 2^-25
    assert (off.at, off.nearest) == (-1, 3)
    assert 3.5 <= off.ulps <= 4.5
    assert found([*good[:3], math.nan]).ulps == math.inf


def test_a_value_next_to_a_midpoint_is_not_rounded_as_a_tie(monkeypatch):
    middle = 1 + 3 * 2.0**-24
    for first, rest, nearest in (
        (np.nextafter(middle, 0), 0.4, 1 + 2.0**-23),
        (np.nextafter(middle, 2), -0.4, 1 + 2.0**-22),
        (middle, -0.4, 1 + 2.0**-23),
        (middle, 0.4, 1 + 2.0**-22),
    ):
        monkeypatch.setattr(sweeps, "decided", lambda name, z, pair=(first, rest): pair)
        assert sweeps.rounded("", np.zeros(1), np.array([first]), 2.0**-50, "float32") == nearest


def test_midpoints_are_decided_exactly():
    # sigmoid(3 * 2^-23) is 3e-22 less than 1/2 + 3 * 2^-25, a midpoint of two float32 numbers. float64 cannot
    # tell them apart.
    z = np.array([3 * 2.0**-23, -3 * 2.0**-24])
    exact, error = sweeps.exact64("sigmoid", z)
    found = sweeps.rounded("sigmoid", z, exact, error, "float32")
    assert found.tolist() == [0.5 + 2.0**-24, 0.5 - 2.0**-25]
    # In this range all results but the first round to the same float. The first one must be right too.
    assert score("cr_sigmoid", "float32", sweeps.block("float32", 0xB4400000, 0xB4800000)).ulps <= 0.5
    bfloat16 = sweeps.rounded("sigmoid", np.array([1.0]), np.array([1 + 2.0**-8 + 2.0**-50]), 0.0, "bfloat16")
    assert bfloat16 == ml_dtypes.bfloat16(1 + 2.0**-7)
