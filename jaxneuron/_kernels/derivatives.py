"""JAX's rules for differentiating the kernels' primitives.

    y = f(x)      dy = df/dx dx                  jax.jvp, and all that uses it: grad, vjp, jacfwd, jacrev
                  x' = f^T y', for a linear f    jax.linear_transpose
                  y + y1 t + y2 t^2 + ...        jax.experimental.jet, along x + x1 t + x2 t^2 + ...

If x is the only operand that varies, and `products.pays` is true, the CPU kernel computes y and dy, by the
primitives of products.py. In all other cases x above stands for every operand, weights and biases too, and
XLA's own path computes the derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron._kernels import products
from jaxneuron._kernels.primitive import forward_p, n_out_of, on_xla, ranks_of
from jaxneuron._kernels.private_jax import ad, jet_rules, nan_checks


def _function_of(varying: Sequence[int], operands: Sequence[Any], params: Any) -> Callable[..., Array]:
    """The network on XLA's path, as a function of the operands whose indices are in `varying`."""

    def function(*values: Array) -> Array:
        each = list(operands)
        for i, value in zip(varying, values, strict=True):
            each[i] = value
        return on_xla(*each, **params)

    return function


def _jvp(primals: Sequence[Array], tangents: Sequence[Any], **params: Any) -> tuple[Array, Any]:
    varying = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]
    if varying == [0] and products.pays(primals, params["biases"]):
        return _along_x(primals, tangents[0], **params)
    function = _function_of(varying, primals, params)
    return jax.jvp(function, [primals[i] for i in varying], [tangents[i] for i in varying])


def _along_x(primals: Sequence[Array], tangent: Array, **params: Any) -> tuple[Array, Array]:
    x, *arrays = primals
    # With one input or one output, J costs no more than a product does.
    if min(x.shape[-1], n_out_of(primals, params["biases"])) == 1:
        backward = products.backward_is_cheaper(primals, params["biases"])
        y, jacobian = products.jacobian_p.bind(*primals, backward=backward, laplacian=False, **params)
        dy = products.times(jacobian, tangent[..., None, :], backward=False)
    else:
        y = forward_p.bind(*primals, **params)
        dy = products.product_p.bind(x, tangent[..., None, :], *arrays, backward=False, **params)
    return y, dy[..., 0, :]


def _transpose(cotangent: Any, *operands: Any, **params: Any) -> list[Array | None]:
    varying = [i for i, a in enumerate(operands) if ad.is_undefined_primal(a)]
    fixed_bias = any(rank == 1 and i not in varying for i, rank in enumerate(ranks_of(params["biases"])))
    if set(params["activations"]) != {"identity"} or fixed_bias:
        raise NotImplementedError(
            "jax.linear_transpose needs a linear function, got layers with activations or biases; "
            "use jax.vjp, or affine without a bias"
        )
    shapes = [operands[i].aval for i in varying]
    found = iter(jax.linear_transpose(_function_of(varying, operands, params), *shapes)(cotangent))
    return [next(found) if i in varying else None for i in range(len(operands))]


def _taylor(primitive: Any, by_xla: Callable[..., Any]) -> Callable[..., tuple[Any, list[Any]]]:
    """A rule for jax.experimental.jet: the value by the primitive, the coefficients by nested derivatives."""

    def rule(primals: Sequence[Array], series: Sequence[Sequence[Array]], **params: Any) -> Any:
        def along(t: Array) -> Any:
            each = zip(primals, series, strict=True)
            return by_xla(*(x + sum(c * t**k for k, c in enumerate(terms, 1)) for x, terms in each), **params)

        zero, coefficients = jnp.zeros((), primals[0].dtype), []
        derivative: Callable[[Array], Any] = along
        for k in range(1, len(series[0]) + 1):
            derivative = _derivative(derivative)
            coefficients.append(jax.tree.map(lambda c, k=k: c / math.factorial(k), derivative(zero)))
        found = primitive.bind(*primals, **params)
        if primitive.multiple_results:
            return found, [list(terms) for terms in zip(*coefficients, strict=True)]
        return found, coefficients

    return rule


def _derivative(function: Callable[[Array], Any]) -> Callable[[Array], Any]:
    return lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),))[1]


ad.primitive_jvps[forward_p] = _jvp
ad.primitive_transposes[forward_p] = _transpose
for primitive, by_xla in (
    (forward_p, on_xla),
    (products.jacobian_p, products.jacobian_by_products),
    (products.product_p, products.product_on_xla),
):
    jet_rules[primitive] = _taylor(primitive, by_xla)
nan_checks(forward_p)
