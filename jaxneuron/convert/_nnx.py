"""Flax NNX modules and their states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadType, BadValue, Missing, inside, public, warn
from jaxneuron._names import Activation
from jaxneuron._params import MLP, Affine
from jaxneuron._scaling import round_once
from jaxneuron.convert._check import Check, compare, compare_given
from jaxneuron.convert._flax import numbered_by_flax
from jaxneuron.convert._modules import is_a
from jaxneuron.convert._names import named_layers, of_layers
from jaxneuron.convert._scalings import Scaling, batch_norm
from jaxneuron.convert._stacks import STACKED, check_stacked, in_turn, members
from jaxneuron.convert._units import Units
from jaxneuron.convert.steps import Activations, Step, assemble, chain, refused, required

REMEDY = (
    "see whether activations and the order of the layers are the module's, and whether it does more: convert "
    "the part without that, or pass check=False to keep the layers alone"
)


@public
@concrete
def from_nnx(
    module: Any,
    *,
    activation: Activations | None = None,
    final_activation: Activation | None = None,
    layers: Sequence[str] | None = None,
    outputs: slice | None = None,
    stacked: str | None = None,
    dtype: DTypeLike | None = None,
    check: Check = True,
) -> MLP:
    """A network from a Flax NNX module, or from its state.

    Args:
      module: an `nnx.Sequential` of `nnx.Linear`, `nnx.BatchNorm` and activations, read as it computes in
        evaluation mode; another module that holds `nnx.Linear`s; or the `nnx.State` of such a module. In
        place of an `nnx.Linear` it may have an `nnx.LoRALinear`, or an `nnx.LoRA` around one, whose `a @ b`
        is added to the kernel.
      activation: the activation of the hidden layers: a name such as "tanh", or a hashable callable. One for
        all hidden layers, or a sequence with one for each. It is read from an `nnx.Sequential`, and required
        otherwise. A callable is given all rows at once, as NNX does.
      final_activation: the activation of the last layer. It is read from an `nnx.Sequential`, and required
        otherwise.
      layers: the names of the network's layers in order, such as "block/linear_0". Layers that are not named,
        such as a critic, are left out. None takes all layers, in the order of their numbers.
      outputs: the units of the last layer to keep, such as `slice(0, 6)` for an actor's means without their
        deviations. None keeps all.
      stacked: the meaning of the first axis of kernels `(n, n_in, n_out)`: "members", if `nnx.vmap` of the
        constructor made it, or "layers", if `nnx.scan` calls them in turn. None if kernels have two axes.
      dtype: the dtype to convert the layers to; None keeps the dtypes that they have.
      check: True compares the network with a module, in evaluation mode, on eight fixed rows, if the module
        can be called on them. False does not. `(rows, outputs)` compares it with these outputs of the source,
        whatever the source is.

    Returns:
      An `MLP` of JAX arrays. While jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are
      not rounded. With `stacked="members"`, a stack of networks: `jax.vmap(mlp_forward, (0, None))(mlp, x)`.

    Raises:
      ValueError: the module has other layers, or subclasses of these layers that are called in another way;
        the names don't tell the order of the layers; the layers do not chain; kernels have three axes and
        `stacked` is not given; activations are missing, or given though the source has them; the network's
        outputs differ from the source's by more than rounding explains; a weight is too large for `dtype`.
      TypeError: `module` is neither a module nor a state, or `dtype` is not one of float64, float32, float16
        and bfloat16.
      ImportError: Flax is not installed.

    Warns:
      UserWarning: if a module does not return outputs for rows alone, so that it can't be compared; for a
        state without `check`, if there are normalisations or LoRA beside the layers in `layers`, which are
        left out.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. LoRA's `kernel + a @ b`
    is summed in float64 and rounded once. A BatchNorm is folded in float64, and its layer is rounded once.
    Its mean, if more than 16 deviations, is subtracted in a layer of its own if it comes after an activation.
    Tested by tests/interop/test_nnx.py, test_nnx_lora.py and test_batch_norm.py.

    Example:
      `from_nnx(nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 2, rngs=rngs)))`
    """
    try:
        from flax import nnx
    except ImportError:
        raise Missing("needs the flax library; pip install flax") from None
    check_stacked(stacked, check)
    steps: Sequence[Step]
    if _is(module, nnx.Sequential):
        refused("an nnx.Sequential", activation, final_activation, layers)
        with inside("module"):
            steps = list(_steps(module, stacked, nnx))
            if stacked == "layers":
                steps = [step for layer in members(steps) for step in layer]
    else:
        called = check is not True or isinstance(module, nnx.Module)  # then the outputs check the order
        found = named_layers(
            _tree(module, layers, nnx),
            "module",
            layers=layers,
            array=lambda v: _array(v, nnx),
            stacked=stacked,
            by_creation=None if called else numbered_by_flax,
            compared=called,
        )
        given = required("an nnx.Sequential", activation, final_activation)
        steps = chain(in_turn(found) if stacked == "layers" else found, *given)
    mlp = assemble(steps, "module", dtype=dtype, stacked=stacked, outputs=outputs)
    kept = slice(None) if outputs is None else outputs
    if check is not True:
        compare_given(mlp, check)
    elif isinstance(module, nnx.Module) and stacked != "members":
        compared = compare(
            mlp,
            lambda rows: _forward(module, rows, nnx)[:, kept],
            "module",
            steps=steps if outputs is None else [*steps, Units(outputs)],
            computed_in=_computed_in(module, nnx),
            remedy=REMEDY,
        )
        if not compared and not _is(module, nnx.Sequential):
            warn(
                f"module: {type(module).__name__} gives no outputs for rows alone, so that nothing shows "
                f"whether it calls these layers in this order and no others; pass the part that is an MLP, "
                f"check=(rows, outputs) of it, or check=False"
            )
    return mlp


def _forward(module: Any, rows: np.ndarray, nnx: Any) -> Any:
    """The outputs of a copy of the module in evaluation mode, row by row, so that rows can't interact."""
    copy = nnx.clone(module)
    copy.eval()
    x = jnp.asarray(rows, jnp.result_type(*jax.tree.leaves(nnx.state(copy, nnx.Param))))
    return jnp.concatenate([copy(row[None]) for row in x])


def _computed_in(module: Any, nnx: Any) -> list[Any]:
    """The dtypes that layers convert their weights or outputs to."""
    given = (
        getattr(part, name, None)
        for _, part in nnx.iter_modules(module)
        for name in ("dtype", "preferred_element_type")
    )
    return [dtype for dtype in given if dtype is not None]


def _steps(sequential: Any, stacked: str | None, nnx: Any) -> Iterator[Step]:
    for part in sequential.layers:
        if _is(part, nnx.Sequential):
            yield from _steps(part, stacked, nnx)
        elif (layer := _affine(part, nnx)) is not None:
            if layer.w.ndim != 2 and not stacked:
                raise BadValue(f"layers must have kernels of two axes, got {layer.w.shape}; {STACKED}")
            yield layer
        elif _is(part, nnx.BatchNorm):
            yield _batch_norm(part, nnx)
        elif not isinstance(part, nnx.Module):
            yield part
        elif not _is(part, nnx.Dropout):
            raise BadValue(
                f"layers must be nnx.Linear, nnx.BatchNorm or activations, got {type(part).__name__}; "
                f"pass the part that is an MLP"
            )


def _batch_norm(part: Any, nnx: Any) -> Scaling:
    _computes_plainly(part, nnx)
    if part.axis != -1:
        raise BadValue(f"an nnx.BatchNorm must be over the last axis, got {part.axis}; pass the part without")
    given = {"scale": part.scale, "shift": part.bias}
    arrays = {name: _array(value, nnx) for name, value in given.items() if value is not None}
    return batch_norm(_array(part.mean, nnx), _array(part.var, nnx), part.epsilon, **arrays)


def _tree(module: Any, layers: Sequence[str] | None, nnx: Any) -> Any:
    """The arrays of a module by their paths; a state is returned unchanged."""
    if isinstance(module, Mapping) and not isinstance(module, nnx.Module):
        return module
    if not isinstance(module, nnx.Module):
        raise BadType(f"module must be an nnx.Module or its state, got {type(module).__name__}; pass one")
    parts = dict(nnx.iter_graph(module))
    found = {path: (part, layer) for path, part in parts.items() if (layer := _affine(part, nnx)) is not None}
    parts_of_layers = {
        id(inner) for part, _ in found.values() for _, inner in nnx.iter_graph(part) if inner is not part
    }
    arrays = {
        (*path, name): array
        for path, (part, layer) in found.items()
        if id(part) not in parts_of_layers
        for name, array in (("kernel", layer.w), ("bias", layer.b))
    }
    for path, part in parts.items():
        holds = isinstance(part, (nnx.Variable, jax.Array, np.ndarray)) and not isinstance(part, nnx.RngState)
        if not holds or id(part) in parts_of_layers:
            continue
        owner = next(o for i in range(len(path), -1, -1) if isinstance(o := parts.get(path[:i]), nnx.Module))
        name = "/".join(map(str, path))
        of_linen = type(owner) is nnx.bridge.ToNNX  # its parameters are a linen module's
        if of_layers([name], layers, "/") and not of_linen:
            raise BadValue(
                f"module must hold its weights in nnx.Linear, got {name!r:.80} of a "
                f"{type(owner).__name__}; pass the part that is an MLP, or nnx.state(module, nnx.Param)"
            )
        arrays[path] = part
    return {"/".join(map(str, path)): array for path, array in arrays.items()}


def _affine(part: Any, nnx: Any) -> Affine | None:
    """The layer of an `nnx.Linear`, with the LoRA around it and in it; None for other modules."""
    added, base = [], part
    while _is(base, nnx.LoRA):
        added.append(base)
        base = base.base_module
    if _is(base, nnx.LoRALinear):
        if not _is(base.lora, nnx.LoRA) or base.lora.base_module is not None:
            raise BadValue(
                f"an nnx.LoRALinear must have its own nnx.LoRA as lora, got another "
                f"{type(base.lora).__name__}; add its weights to the kernel"
            )
        added.append(base.lora)
        layer = _of_linear(base, nnx)
    elif _is(base, nnx.Linear):
        layer = _of_linear(base, nnx)
    elif not added:
        return None
    elif base is None:
        layer = None
    else:
        raise BadValue(
            f"an nnx.LoRA must have an nnx.Linear as base_module, got {type(base).__name__}; "
            f"pass the part that is an MLP"
        )
    return _with_lora(layer, added, nnx) if added else layer


def _of_linear(linear: Any, nnx: Any) -> Affine:
    _computes_plainly(linear, nnx)
    return Affine(_array(linear.kernel, nnx), None if linear.bias is None else _array(linear.bias, nnx))


def _with_lora(layer: Affine | None, added: Sequence[Any], nnx: Any) -> Affine:
    """x @ w + b plus x @ lora_a @ lora_b of each LoRA: the weights are summed in float64 and rounded once."""
    arrays = [] if layer is None else [np.asarray(layer.w)]
    exact: Any = 0.0 if layer is None else arrays[0].astype(np.float64)
    for lora in added:
        _computes_plainly(lora, nnx)
        a, b = (np.asarray(_array(v, nnx)) for v in (lora.lora_a, lora.lora_b))
        exact = exact + a.astype(np.float64) @ b.astype(np.float64)
        arrays += [a, b]
    with np.errstate(all="ignore"):
        kernel = round_once(exact, np.dtype(jnp.result_type(*arrays)))
    if (np.isfinite(exact) & ~np.isfinite(kernel)).any():
        raise BadValue(
            f"kernel + lora_a @ lora_b must fit in {kernel.dtype.name}, got {np.abs(exact).max():g}; "
            f"convert the module to a wider dtype"
        )
    return Affine(kernel, None if layer is None else layer.b)


def _computes_plainly(part: Any, nnx: Any) -> None:
    """Refuses a layer that multiplies or converts its weights by a user's own function."""
    plain = {"dot_general": jax.lax.dot_general, "promote_dtype": nnx.nn.dtypes.promote_dtype}
    for name, function in plain.items():
        if getattr(part, name, function) is not function:
            raise BadValue(
                f"an nnx.{type(part).__name__} must have Flax's own {name}, got {getattr(part, name)!r:.80}; "
                f"pass layers without it, or the weights that it makes to from_pairs"
            )


def _array(value: Any, nnx: Any) -> Any:
    """The array that a layer reads from a variable."""
    if not isinstance(value, nnx.Variable):
        return value
    try:
        return value[...]
    except Exception:  # the value isn't an array
        raise BadType(
            f"module must hold arrays, got a {type(value).__name__} that holds none; "
            f"pass a module whose weights are arrays, which are not quantised"
        ) from None


def _is(module: Any, kind: Any) -> bool:
    return is_a(module, kind, "Flax", "nnx.")
