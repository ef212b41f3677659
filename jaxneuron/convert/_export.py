"""Networks as compiled programs, which run where jaxneuron is not installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax import export as jax_export

from jaxneuron._arrays import as_operand, result_dtype
from jaxneuron._atomic import replacing
from jaxneuron._forward import mlp_forward
from jaxneuron._params import MLP
from jaxneuron.convert._out import network

PLATFORMS = ("cpu", "cuda", "tpu")


def export(mlp: MLP, path: str | os.PathLike[str], *, weights: str = "inside") -> None:
    """Write a network as a program in StableHLO, which `jax.export` runs without jaxneuron.

        y = jax.export.deserialize(bytearray(Path(path).read_bytes())).call(x)

    Args:
      mlp: an `MLP`, with any activations.
      path: the file; one that exists is replaced, in one step, when the new one is complete.
      weights: "inside" the program; or "arguments", and it is called as `.call(arrays, x)`, where arrays
        is the list `jax.tree.leaves(mlp)`, of any network of these shapes.

    The program takes `x (batch, n_in)` of the network's dtype, one row or more, and runs on cpu, cuda and
    tpu. A float64 network needs `jax_enable_x64` where it runs, and jax.export needs flatbuffers.

    Raises:
      ValueError: another `weights`, a stack of networks. TypeError: what is no `MLP`. OSError: what the file
        system says. ImportError: without the extra `export`.

    Numerics: those of `mlp_forward` on XLA's own path; held by tests/test_export.py.

    Example:
      >>> export(jaxneuron.gates.XOR, "xor.stablehlo")
      >>> load_exported("xor.stablehlo")([[0, 1], [1, 1]]).shape
      (2, 1)
    """
    if weights not in ("inside", "arguments"):
        raise ValueError(
            f"export: weights must be 'inside' or 'arguments', got {weights!r}; pass one of them"
        )
    leaves, structure = jax.tree.flatten(network(mlp, "export"))
    _check_flatbuffers("export")
    wide = any(np.dtype(leaf.dtype) == np.float64 for leaf in leaves)
    with jax.enable_x64(wide or jax.config.jax_enable_x64):  # type: ignore[attr-defined]
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        x = jax.ShapeDtypeStruct(
            jax_export.symbolic_shape(f"batch, {mlp.layers[0].w.shape[0]}"), result_dtype(*arrays)
        )
        if weights == "inside":
            program = _lowered(lambda x: mlp_forward(jax.tree.unflatten(structure, arrays), x), x)
        else:
            shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
            program = _lowered(
                lambda arrays, x: mlp_forward(jax.tree.unflatten(structure, arrays), x), shapes, x
            )
    with replacing(Path(path)) as file:
        file.write(program.serialize())


def _check_flatbuffers(where: str) -> None:
    try:
        import flatbuffers  # noqa: F401 # jax.export's own need
    except ImportError:
        raise ImportError(
            f"{where}: needs the flatbuffers library; pip install 'jaxneuron[export]'"
        ) from None


def _lowered(function: Callable[..., Array], *shapes: Any) -> Any:
    return jax_export.export(jax.jit(function), platforms=PLATFORMS)(*shapes)


def load_exported(path: str | os.PathLike[str]) -> Callable[..., Array]:
    """The function in a file that `export` wrote.

    Args:
      path: the file. It is a program: run those of people you trust.

    Returns:
      A function of `x (batch, n_in)`, or of `(arrays, x)` if its weights are arguments, differentiable
      nowhere. `x` may be anything array-like; it is converted to the network's dtype.

    Raises:
      OSError: what the file system says. ValueError: what is no such file. ImportError: without the extra
        `export`.
    """
    program = read_exported(path)
    *weights, inputs = program.in_avals
    wide = any(aval.dtype == np.float64 for aval in program.in_avals)

    def run(*arguments: Any) -> Array:
        if len(arguments) != (2 if weights else 1):
            taken = "(arrays, x)" if weights else "x alone"
            raise TypeError(f"load_exported: the program takes {taken}, got {len(arguments)} arguments")
        *arrays, x = arguments
        if arrays and [np.shape(array) for array in arrays[0]] != [aval.shape for aval in weights]:
            raise ValueError(
                f"load_exported: arrays must be the {len(weights)} leaves of an MLP of these shapes: "
                f"{', '.join(str(aval.shape) for aval in weights)}, got {len(arrays[0])}"
            )
        with jax.enable_x64(wide or jax.config.jax_enable_x64):  # type: ignore[attr-defined]
            x = as_operand(x, "load_exported: x")
            if x.ndim != 2 or x.shape[1] != inputs.shape[1]:
                raise ValueError(
                    f"load_exported: x must have shape (batch, {inputs.shape[1]}) for this program, "
                    f"got {x.shape}; pass rows"
                )
            if not len(x):  # a symbolic batch is one row at least
                return jnp.zeros((0, *program.out_avals[0].shape[1:]), program.out_avals[0].dtype)
            cast = (
                [[jnp.asarray(a, aval.dtype) for a, aval in zip(arrays[0], weights, strict=True)]]
                if arrays
                else []
            )
            return program.call(*cast, jnp.asarray(x, inputs.dtype))

    return run


def read_exported(path: str | os.PathLike[str]) -> Any:
    """The `jax.export.Exported` in a file."""
    _check_flatbuffers("load_exported")
    content = Path(path).read_bytes()
    try:
        return jax_export.deserialize(bytearray(content))
    except Exception as error:  # whatever reads flatbuffers meets in other bytes
        raise ValueError(
            f"load_exported: {path} is not a whole file of jaxneuron's export ({str(error)[:100]}); "
            f"write it again"
        ) from None
