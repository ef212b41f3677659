"""ONNX's own tests of its operators, and its converted PyTorch models, through from_onnx.

A case passes if the MLP computes the outputs that the case demands, within the case's own tolerance. In the
operator tests every value is an input: the first becomes the network's input, the others become constants. A
case may be refused only for one of the reasons below, and the test checks that the reason is true of the
case.
"""

import math
import re
import warnings

import jax
import numpy as np
import pytest

from jaxneuron import mlp_forward
from jaxneuron.convert import from_onnx

onnx = pytest.importorskip("onnx", reason="onnx is in the extra interop")

from onnx import TensorProto, numpy_helper  # noqa: E402
from onnx.backend.test.loader import load_model_tests  # noqa: E402

IN_SCOPE = {
    "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Sigmoid", "Tanh", "Relu", "Elu", "Selu", "LeakyRelu", "Softplus",
    "Softsign", "HardSigmoid", "Gelu", "Swish", "Softmax", "Identity", "Flatten", "Dropout", "BatchNormalization",
    "Neg", "Pow", "Clip", "PRelu", "Celu", "Mish", "HardSwish", "Max", "Min", "Reshape", "Squeeze", "Unsqueeze",
    "Transpose", "Gather", "Slice", "Split",
}  # fmt: skip
# The same activations, written as the nodes that define them.
EXPANDED = re.compile(
    "test_(celu|clip|elu|gelu|hardsigmoid|hardswish|leakyrelu|mish|prelu|relu|selu|softplus|softsign|swish)_.*expanded"
)
MODELS = re.compile(
    "test_(Linear|Linear_no_bias|ELU|LeakyReLU.*|ReLU|SELU|Sigmoid|Softmax|Softplus|Softsign|Tanh)$"
)


def node(case):
    return case.model.graph.node[0]


def inputs(case):
    return case.data_sets[0][0]


def outputs(case):
    return case.data_sets[0][1]


# For each reason, a condition that is true of every case that may be refused for it.
REASONS = {
    "it transposes its input (transA)": lambda c: any(a.name == "transA" and a.i for a in node(c).attribute),
    "its weights must have two axes": lambda c: inputs(c)[1].ndim != 2,
    "its constant must be one number or one for each unit": lambda c: any(
        x.size != x.shape[-1] for x in inputs(c)[1:]
    ),
    "its values are integers": lambda c: inputs(c)[0].dtype.kind in "iu",
    "it normalises axis 1": lambda c: inputs(c)[0].ndim != 2,
    "it is in training mode": lambda c: len(outputs(c)) > 1 or any(x.dtype == bool and x for x in inputs(c)),
    "it does not keep rows": lambda c: (
        not (
            {math.prod(inputs(c)[0].shape[-i:]) for i in range(1, inputs(c)[0].ndim)}
            & {math.prod(outputs(c)[0].shape[-i:]) for i in range(1, outputs(c)[0].ndim + 1)}
        )
        or (node(c).op_type == "Transpose" and outputs(c)[0].shape[0] != len(inputs(c)[0]))
    ),
    "it chooses rows": lambda c: len(outputs(c)[0]) != len(inputs(c)[0]),
    "it splits": lambda c: inputs(c)[0].size == 0,
    "it sums over axis": lambda c: [a.i for a in node(c).attribute] != [inputs(c)[0].ndim - 1],
    "its slopes differ": lambda c: len(np.unique(inputs(c)[1])) > 1,
    "its first input is a constant": lambda c: node(c).op_type == "Less",  # it compares a max with x
    "x 10000 weights": lambda c: inputs(c)[0].shape == (10000,),  # an activation alone needs a layer
    "it is not affine": lambda c: (
        any(n.op_type in ("Max", "Min", "Pow", "Less") for n in c.model.graph.node)
        and (any(x.size > 1 for x in inputs(c)[1:]) or "min_greater_than_max" in c.name)
    ),
    "it must have a min below a max": lambda c: inputs(c)[1] > inputs(c)[2],
    "it compares with numbers that differ": lambda c: inputs(c)[1].size > 1,
}


def with_constants(case):
    """The case's model, with all inputs except the first turned into initialisers."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for value, array in list(zip(model.graph.input, inputs(case), strict=True))[1:]:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
    return model


def verdict(case, model, xs, ys):
    """None if the case passes, otherwise why it was refused. Raises AssertionError if outputs are wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mlp = from_onnx(model, output=model.graph.output[0].name)
    except ValueError as refusal:
        return str(refusal)
    x, y = np.asarray(xs[0]), np.asarray(ys[0])
    n_in = mlp.layers[0].w.shape[0]
    found = np.asarray(mlp_forward(mlp, x.reshape(-1, n_in)))  # a row may have several axes
    assert found.size == y.size, case.name
    found = found.reshape(y.shape)
    np.testing.assert_allclose(found.astype(y.dtype), y, rtol=case.rtol, atol=case.atol, err_msg=case.name)
    return None


def operator_cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX raises them while it builds its cases
        cases = load_model_tests(kind="node")
    for case in cases:
        single = len(case.model.graph.node) == 1 and node(case).op_type in IN_SCOPE
        in_scope = single or EXPANDED.match(case.name)
        if in_scope and inputs(case) and isinstance(inputs(case)[0], np.ndarray):
            yield case, with_constants(case), inputs(case), outputs(case)


def model_cases():
    for case in load_model_tests(kind="pytorch-converted"):
        if MODELS.match(case.name):
            model = onnx.load(f"{case.model_dir}/model.onnx")
            folder, data = case.model_dir, []
            for name in ("input_0.pb", "output_0.pb"):
                with open(f"{folder}/test_data_set_0/{name}", "rb") as file:
                    data.append(numpy_helper.to_array(TensorProto.FromString(file.read())))
            yield case, model, data[:1], data[1:]


def test_every_case_passes_or_is_refused_for_a_true_reason(capsys):
    passed, refused = [], {}
    with jax.enable_x64(True):
        for case, *rest in (*operator_cases(), *model_cases()):
            reason = verdict(case, *rest)
            if reason is None:
                passed.append(case.name)
                continue
            known = [text for text in REASONS if text in reason]
            assert len(known) == 1, (case.name, reason)
            assert REASONS[known[0]](case), (case.name, reason)
            refused.setdefault(known[0], []).append(case.name)
    with capsys.disabled():
        total = len(passed) + sum(map(len, refused.values()))
        print(f"\nONNX conformance: {len(passed)} of {total} cases in scope pass, the others are refused:")
        for reason, names in sorted(refused.items()):
            print(f"  {len(names):3} {reason} ...: {', '.join(sorted(names))}")
    assert {"test_Linear", "test_Linear_no_bias", "test_gemm_alpha", "test_swish", "test_Softsign"} <= set(
        passed
    )
