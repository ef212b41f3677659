"""Writes networks as StableHLO programs, which run where jaxneuron is not installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax import export as jax_export

from jaxneuron._arrays import as_operand, complete, holds_numpy, result_dtype
from jaxneuron._atomic import replacing
from jaxneuron._errors import BadType, BadValue, missing, public
from jaxneuron._file_kinds import check_kind
from jaxneuron._files import as_path
from jaxneuron._forward import _mlp_forward
from jaxneuron._params import MLP
from jaxneuron.convert.steps import network

PLATFORMS = ("cpu", "cuda", "tpu")


@public
def export(mlp: MLP, path: str | os.PathLike[str], *, weights: str = "inside") -> None:
    """Write a network as a program in StableHLO, which `jax.export` runs without jaxneuron.

        y = jax.export.deserialize(bytearray(Path(path).read_bytes())).call(x)

    Args:
      mlp: an `MLP`, with any activations.
      path: the file. An existing file is replaced, in one step, once the new one is complete.
      weights: "inside" stores the weights in the program. With "arguments" the program is called as
        `.call(arrays, x)`, where `arrays` is the list `jax.tree.leaves(mlp)` of any network with these
        shapes.

    The program takes `x (batch, n_in)` of the network's dtype, with one row or more, and runs on cpu, cuda
    and tpu. A float64 network needs `jax_enable_x64` where it runs. To run a program, jax.export needs
    flatbuffers.

    Raises:
      ValueError: `weights` is neither of the two, or `mlp` is a stack of networks.
      TypeError: `mlp` is not an `MLP`.
      OSError: the file can't be written.
      ImportError: the extra `export` is not installed.

    Numerics: the program computes what `mlp_forward` does on XLA's own path, with the same promises. Tested
    by tests/convert/test_stablehlo.py.

    Example:
      >>> export(jaxneuron.gates.XOR, "xor.stablehlo")
      >>> load_exported("xor.stablehlo")([[0, 1], [1, 1]]).shape
      (2, 1)
    """
    if not isinstance(weights, str) or weights not in ("inside", "arguments"):
        raise BadValue(f"weights must be 'inside' or 'arguments', got {weights!r}; pass one of them")
    path = as_path(path)
    leaves, structure = jax.tree.flatten(network(mlp))
    _check_flatbuffers()
    wide = any(np.dtype(leaf.dtype) == np.float64 for leaf in leaves)
    with jax.enable_x64(wide or jax.config.jax_enable_x64):  # type: ignore[attr-defined]
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        x = jax.ShapeDtypeStruct(
            jax_export.symbolic_shape(f"batch, {mlp.layers[0].w.shape[0]}"), result_dtype(*arrays)
        )
        if weights == "inside":
            program = _lowered(lambda x: _mlp_forward(jax.tree.unflatten(structure, arrays), x), x)
        else:
            shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
            program = _lowered(
                lambda arrays, x: _mlp_forward(jax.tree.unflatten(structure, arrays), x), shapes, x
            )
    with replacing(path) as file:
        file.write(program.serialize())


def _check_flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401 # jax.export needs it
    except ImportError:
        raise missing("flatbuffers", "export") from None


def _lowered(function: Callable[..., Array], *shapes: Any) -> Any:
    return jax_export.export(jax.jit(function), platforms=PLATFORMS)(*shapes)


@public
def load_exported(path: str | os.PathLike[str]) -> Callable[..., Array]:
    """Load the function in a file that `export` wrote.

    Args:
      path: the file. It is a program: run only files from people you trust.

    Returns:
      A function of `x (batch, n_in)`, or of `(arrays, x)` if its weights are arguments. JAX can't
      differentiate it. `x` may be anything array-like; it is converted to the network's dtype.

    Raises:
      OSError: the file can't be read.
      ValueError: `export` did not write the file, or it is incomplete.
      ImportError: the extra `export` is not installed.

    Numerics: the function computes what `mlp_forward` does on XLA's own path, with the same promises. Tested
    by tests/convert/test_stablehlo.py.

    Example:
      >>> export(jaxneuron.gates.XOR, "xor.stablehlo")
      >>> load_exported("xor.stablehlo")([[0, 1], [1, 1]]).shape
      (2, 1)
    """
    program = read_exported(path)
    *weights, inputs = program.in_avals
    wide = any(aval.dtype == np.float64 for aval in program.in_avals)

    def run(*arguments: Any) -> Array:
        if len(arguments) != (2 if weights else 1):
            taken = "(arrays, x)" if weights else "x alone"
            raise BadType(f"the program takes {taken}, got {len(arguments)} arguments; pass {taken}")
        *arrays, x = arguments
        if arrays and not isinstance(arrays[0], (list, tuple)):
            raise BadType(f"arrays must be a list, got {type(arrays[0]).__name__}; pass jax.tree.leaves(mlp)")
        if arrays and [np.shape(array) for array in arrays[0]] != [aval.shape for aval in weights]:
            raise BadValue(
                f"arrays must be the {len(weights)} leaves of an MLP of these shapes: "
                f"{', '.join(str(aval.shape) for aval in weights)}, got {len(arrays[0])}; "
                f"pass jax.tree.leaves(mlp)"
            )
        with jax.enable_x64(wide or jax.config.jax_enable_x64):  # type: ignore[attr-defined]
            x = as_operand(x, "x")
            if x.ndim != 2 or x.shape[1] != inputs.shape[1]:
                raise BadValue(
                    f"x must have shape (batch, {inputs.shape[1]}) for this program, got {x.shape}; pass rows"
                )
            if not len(x):  # jax.export assumes that a symbolic size is at least 1
                return jnp.zeros((0, *program.out_avals[0].shape[1:]), program.out_avals[0].dtype)
            cast = (
                [[jnp.asarray(a, aval.dtype) for a, aval in zip(arrays[0], weights, strict=True)]]
                if arrays
                else []
            )
            y = program.call(*cast, jnp.asarray(x, inputs.dtype))
            return complete(y) if holds_numpy(x, *(arrays[0] if arrays else ())) else y

    run.__qualname__ = "load_exported"  # its error messages begin with this name
    return public(run)


def read_exported(path: str | os.PathLike[str]) -> Any:
    """The `jax.export.Exported` in a file."""
    path = as_path(path)
    check_kind(path, "stablehlo", "a program of jaxneuron's export")
    _check_flatbuffers()
    content = path.read_bytes()
    try:
        return jax_export.deserialize(bytearray(content))
    except Exception as error:  # of many types, if the file is not an exported program
        raise BadValue(
            f"{path} is not a whole file of jaxneuron's export ({str(error)[:100]}); write it again"
        ) from None
