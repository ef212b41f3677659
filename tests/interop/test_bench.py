"""Every peer in the bench computes what its case says."""

import jax
import pytest

from bench import gpu
from bench.cases import POLICY, Case, network
from bench.contenders import PEERS
from bench.truth import as_numpy, check, truth

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch raises it when it is imported
CASES = (
    Case((4, 7, 3), "sigmoid", "softmax", 5, "a classifier"),
    Case((4, 7, 1), "sigmoid", "sigmoid", 5, "a classifier of two classes"),
    Case(POLICY, "relu", "tanh", 1, "a final activation that scikit-learn lacks"),
    Case((4, 7, 3), "silu", "identity", 5, "an activation of two operators in ONNX"),
    Case((4, 7, 3), "tanh", "identity", 5, "float64", "float64"),
    Case((4, 7, 3), "sigmoid", "sigmoid", 5, "bfloat16", "bfloat16"),
    Case((4, 7, 3), "relu", "identity", 5, "an ensemble", members=3, shared=True),
    Case((4, 7, 3), "tanh", "identity", 5, "a population", members=3),
)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_peers_compute_what_the_case_says(case, name):
    with jax.enable_x64(case.dtype == "float64"):
        mlp, x = network(case)
        try:
            call = PEERS[name](case, mlp, x)  # kept, because its outputs may be in memory that it owns
            found = as_numpy(call())
        except ImportError as missing:
            pytest.skip(str(missing))
        except NotImplementedError as reason:
            pytest.skip(str(reason))
        check(name, found, truth(case, mlp, x), ours=False)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_flax_in_the_gpu_bench_is_as_exact_as_the_textbook(dtype):
    pytest.importorskip("flax")
    case = gpu.Case((4, 7, 3), "tanh", 16, dtype)
    layers, xs = gpu.network(case)
    flax, textbook = (way(case, layers, xs)(0) for way in (gpu.flax_dense, gpu.textbook))
    assert flax.dtype == textbook.dtype == dtype
    assert gpu.host_to_host(case) > 0
    assert gpu.error(case, layers, xs[0], flax) <= 1.5 * gpu.error(case, layers, xs[0], textbook)
