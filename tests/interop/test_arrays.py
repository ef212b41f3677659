"""Arrays of other libraries that hold more than numbers. NumPy would drop the rest, so they are refused."""

import jax
import numpy as np
import pytest

from jaxneuron import MLP, Evaluator, evaluate, mlp_forward
from jaxneuron.convert import from_torch

NETWORK = MLP([(np.ones((2, 3), np.float32), None)], final_activation="identity")
X = np.array([[1.0, 2.0]], np.float32)


def with_units_of_pint(path):
    return X * pytest.importorskip("pint").UnitRegistry().metre


def with_units_of_astropy(path):
    return X * pytest.importorskip("astropy.units").m


def with_units_of_unyt(path):
    return pytest.importorskip("unyt").unyt_array(X, "m")


def variable_of_netcdf(path):
    with pytest.importorskip("netCDF4").Dataset(path, "w") as file:
        file.createDimension("row", 1)
        file.createDimension("column", 2)
        file.createVariable("x", "f4", ("row", "column"), fill_value=-999.0)[0, 0] = 1.0
    return __import__("netCDF4").Dataset(path)["x"]  # [1, missing]: as an array, [1, -999]


def sparse_of_pydata(path):
    return pytest.importorskip("sparse").COO(X)


def tensor(make):
    """Returns a function of a path that calls `make` with PyTorch, or skips the test if it is missing."""

    def made(path):
        return make(pytest.importorskip("torch"))

    made.__name__ = make.__name__
    return made


@tensor
def on_meta(torch):
    return torch.ones((1, 2), device="meta")


@tensor
def sparse(torch):
    return torch.ones((1, 2)).to_sparse()


@tensor
def masked(torch):
    return torch.masked.masked_tensor(torch.ones(1, 2), torch.ones(1, 2) > 0)


@tensor
def with_gradient(torch):
    return torch.ones((1, 2), requires_grad=True)


@tensor
def bfloat16(torch):
    return torch.ones((1, 2), dtype=torch.bfloat16)


@tensor
def nested(torch):
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(2)])


@tensor
def lazily_negated(torch):
    return torch.ones((1, 2), dtype=torch.complex64).conj().imag


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (with_units_of_pint, "which has units; convert it to the network's units and pass .magnitude"),
        (with_units_of_astropy, "which has units; convert it to the network's units and pass .value"),
        (with_units_of_unyt, "which has units; convert it to the network's units and pass .value"),
        (variable_of_netcdf, "which has a mask; pass .filled\\(number\\)"),
        (sparse_of_pydata, "which is sparse; pass .todense\\(\\)"),
        (on_meta, "on the device meta, which holds no numbers; load its numbers first"),
        (sparse, "which is sparse; pass .to_dense\\(\\)"),
        (nested, "which is nested; pass its tensors one by one"),
        (lazily_negated, "negat.*; pass .numpy\\(force=True\\)"),
        (masked, "which is a subclass of Tensor; pass a plain torch.Tensor"),
        (with_gradient, "requires .*; pass .numpy\\(force=True\\)"),
        (bfloat16, "BFloat16.*; pass .float\\(\\).numpy\\(force=True\\)"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_arrays_with_more_than_numbers_are_refused_with_a_remedy(make, remedy, tmp_path):
    rows = make(tmp_path / "x.nc")
    calls = {
        "mlp_forward": lambda: mlp_forward(NETWORK, rows),
        "evaluate": lambda: evaluate(NETWORK, rows),
        "MLP": lambda: MLP([(rows, None)]),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"^{name}: .*{remedy}"):
            call()


@pytest.mark.parametrize("make", [with_gradient, bfloat16], ids=lambda each: each.__name__)
def test_lists_of_tensors_that_numpy_refuses_are_refused(make, tmp_path):
    (row,) = make(tmp_path)
    for rows in ([row, row], [[0.0, 1.0], row], [[*row]]):
        for call in (lambda: mlp_forward(NETWORK, rows), lambda: evaluate(NETWORK, rows)):  # noqa: B023
            with pytest.raises(
                TypeError, match=r"got Tensor \(.*\); pass (.float\(\))?.numpy\(force=True\) of each"
            ):
                call()
    uneven = [row.detach().float(), row.detach().float()[:1]]
    with pytest.raises(ValueError, match="give every row the same length"):
        mlp_forward(NETWORK, uneven)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("make", [on_meta, sparse, masked, nested], ids=lambda each: each.__name__)
def test_importers_refuse_tensors_that_are_not_plain(make, tmp_path):
    state, given = {"0.weight": make(tmp_path)}, {"activation": "relu", "final_activation": "identity"}
    plain = {"0.weight": np.ones((1, 2), np.float32)}
    for call in (
        lambda: from_torch(state, **given),
        lambda: from_torch(plain, check=(*state.values(), X), **given),
    ):
        with pytest.raises(TypeError, match=r"^from_torch: .* must hold plain numbers, got .*Tensor"):
            call()


def test_from_torch_reads_lazily_negated_tensors(tmp_path):
    tensor = lazily_negated(tmp_path)
    given = {"activation": "relu", "final_activation": "identity"}
    mlp = from_torch({"0.weight": tensor}, check=(tensor, [[0.0]]), **given)
    np.testing.assert_array_equal(mlp.layers[0].w, [[-0.0], [-0.0]])


def test_evaluate_refuses_shapes_and_tables():
    for rows in (jax.ShapeDtypeStruct((1, 2), np.float32), pytest.importorskip("astropy.table").Table(X)):
        with pytest.raises(TypeError, match=r"^evaluate: rows"):
            evaluate(NETWORK, rows)
    np.testing.assert_array_equal(evaluate(NETWORK, memoryview(X)), [[3.0, 3.0, 3.0]])


def test_plain_tensors_are_taken():
    torch = pytest.importorskip("torch")
    expected = np.asarray(mlp_forward(NETWORK, X))
    for rows in (torch.tensor(X), torch.tensor(X).double()):
        np.testing.assert_array_equal(mlp_forward(NETWORK, rows), expected)
        np.testing.assert_array_equal(evaluate(NETWORK, rows), expected)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_data_frames_must_have_the_order_of_the_named_inputs(library):
    frames = pytest.importorskip(library)
    make = frames.table if library == "pyarrow" else frames.DataFrame
    named = MLP([([[1.0], [10.0]], None)], final_activation="identity", inputs=["a", "b"])
    good, other = {"a": [1.0, 2.0], "b": [3.0, 4.0]}, {"b": [3.0, 4.0], "a": [1.0, 2.0]}
    for name, call in (
        ("mlp_forward", mlp_forward),
        ("evaluate", evaluate),
        ("Evaluator", lambda mlp, x: Evaluator(mlp)(x)),
    ):
        np.testing.assert_array_equal(call(named, make(good)), [[31.0], [42.0]])
        with pytest.raises(ValueError, match=rf"^{name}: .* in its order, a, b, got b, a; pass \w+\[list"):
            call(named, make(other))
    np.testing.assert_array_equal(mlp_forward(NETWORK, make(other)).shape, (2, 3))
