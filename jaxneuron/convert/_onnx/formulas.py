"""Elementwise formulas of one value x, in a form that does not depend on how an exporter wrote them.

A formula is a polynomial in atoms. Atoms are x, functions of formulas, such as ("tanh", formula), and

    ("positive", e)      1 where e > 0, otherwise 0

With `positive`, a function of several pieces is a polynomial too: relu(e) = e positive(e), and
where(e > 0, a, b) = b + (a - b) positive(e). A function of such a value is taken apart:
f(where(c, a, b)) = where(c, f(a), f(b)). So Clip, Min of Max, and Where of Less give one formula. So do
x * 0.5 * (1 + erf(y)) and x * (0.5 + erf(y) / 2).

A formula does not record whether a comparison was strict, so at e = 0 `positive` may be wrong by one. That
does not matter if the pieces meet there, as they do in every activation that formulas are compared with.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

MOST_PARTS = 150  # of a formula; tanh-GELU, the longest known activation, has 30
Atom = tuple[Any, ...]
Product = tuple[Atom, ...]


class NoFormula(Exception):
    """A value does not have a formula, or its formula is too long for an activation."""


class Formula:
    """The sum of `coefficient * product of atoms` over `terms`."""

    __slots__ = ("_hash", "names", "parts", "terms")
    parts: int  # how many atoms and terms the formula has, at any depth

    def __init__(self, terms: dict[Product, float]) -> None:
        self.terms = {atoms: float(c) for atoms, c in terms.items() if c != 0}
        atoms = [atom for product in self.terms for atom in product]
        inner: list[Formula] = [argument for atom in atoms for argument in atom[1:]]
        self.parts = len(self.terms) + len(atoms) + sum(argument.parts for argument in inner)
        if self.parts > MOST_PARTS or not all(map(math.isfinite, self.terms.values())):
            raise NoFormula
        # The functions in the formula, at any depth.
        self.names: frozenset[str] = frozenset(a[0] for a in atoms).union(*(each.names for each in inner))
        self._hash = hash(frozenset(self.terms.items()))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Formula) and self._hash == other._hash and self.terms == other.terms

    def __add__(self, other: Formula | float) -> Formula:
        return _sum([*self.terms.items(), *number(other).terms.items()])

    def __mul__(self, other: Formula | float) -> Formula:
        others = number(other).terms.items()
        return _sum((_product(a, b), c * d) for a, c in self.terms.items() for b, d in others)

    def __sub__(self, other: Formula | float) -> Formula:
        return self + number(other) * -1.0

    def __truediv__(self, other: Formula | float) -> Formula:
        return self * reciprocal(number(other))

    def __rsub__(self, other: float) -> Formula:
        return self * -1.0 + other

    def __rtruediv__(self, other: float) -> Formula:
        return reciprocal(self) * other

    def __neg__(self) -> Formula:
        return self * -1.0

    __radd__, __rmul__ = __add__, __mul__

    @property
    def constant(self) -> float:
        """The term without atoms."""
        return self.terms.get((), 0.0)

    @property
    def linear(self) -> bool:
        return all(len(atoms) < 2 for atoms in self.terms) and self.names <= {"x"}


def number(value: Formula | float) -> Formula:
    return value if isinstance(value, Formula) else Formula({(): value})


def _sum(terms: Iterable[tuple[Product, float]]) -> Formula:
    found: dict[Product, float] = {}
    for atoms, c in terms:
        found[atoms] = found.get(atoms, 0.0) + c
    return Formula(found)


def _product(a: Product, b: Product) -> Product:
    """The product of two products of atoms. positive(e + s) * positive(e + t) is positive(e + s) if s < t."""
    atoms = list(a)
    for atom in b:
        for i, other in enumerate(atoms):
            if atom[0] == other[0] == "positive" and not (atom[1] - other[1]).names:
                atoms[i] = min(atom, other, key=lambda step: step[1].constant)
                break
        else:
            atoms.append(atom)
    return tuple(sorted(atoms, key=hash))


def _leading(e: Formula) -> float:
    """The coefficient of one term that is not constant. The atoms' names alone decide which term it is."""
    return e.terms[max((atoms for atoms in e.terms if atoms), key=lambda atoms: sorted(a[0] for a in atoms))]


def _pieces(e: Formula) -> tuple[Formula, Formula, Formula] | None:
    """A comparison in `e`, the formula of `e` if it is true, and its formula if it is false."""
    for atom in (atom for atoms in e.terms for atom in atoms if atom[0] == "positive"):
        without = [(tuple(a for a in atoms if a != atom), c) for atoms, c in e.terms.items()]
        kept = [(atoms, c) for atoms, c in e.terms.items() if atom not in atoms]
        return Formula({(atom,): 1.0}), _sum(without), _sum(kept)
    return None


def _piecewise(function: Callable[[Formula], Formula]) -> Callable[[Formula], Formula]:
    def of(e: Formula) -> Formula:
        if pieces := _pieces(e):
            condition, a, b = pieces
            return where(condition, of(a), of(b))
        return function(e)

    return of


@_piecewise
def reciprocal(e: Formula) -> Formula:
    if not e.names:
        return number(1 / e.constant if e.constant else math.inf)
    return Formula({(("reciprocal", e * (1 / _leading(e))),): 1 / _leading(e)})


@_piecewise
def positive(e: Formula) -> Formula:
    """1 where e > 0, otherwise 0."""
    if not e.names:
        return number(e.constant > 0)
    step = Formula({(("positive", e * (1 / _leading(e))),): 1.0})
    return step if _leading(e) > 0 else 1 - step


def function(
    name: str,
    of_number: Callable[[float], float],
    mirrored: Callable[[Formula, Formula], Formula] | None = None,
) -> Callable[[Formula], Formula]:
    """The formula f(e), with f as an atom. `mirrored` gives f(-e) from e and f(e): one atom serves both."""

    def f(e: Formula) -> Formula:
        if not e.names:
            return number(of_number(e.constant))
        if mirrored and _leading(e) < 0:
            return mirrored(-e, f(-e))
        return Formula({((name, e),): 1.0})

    return _piecewise(f)


erf = function("erf", math.erf, lambda _, y: -y)
exp = function("exp", lambda c: math.exp(min(c, 700.0)))
log = function("log", lambda c: math.log(c) if c > 0 else math.inf)
sigmoid = function("sigmoid", lambda c: math.exp(-math.log1p(math.exp(min(-c, 700.0)))), lambda _, y: 1 - y)
sqrt = function("sqrt", lambda c: math.sqrt(c) if c > 0 else 0.0)
softplus = function("softplus", lambda c: max(c, 0.0) + math.log1p(math.exp(-abs(c))), lambda e, y: y - e)
tanh = function("tanh", math.tanh, lambda _, y: -y)


def relu(e: Formula) -> Formula:
    return e * positive(e)


def where(condition: Formula, a: Formula, b: Formula) -> Formula:
    return b + condition * (a - b)


def maximum(a: Formula, b: Formula) -> Formula:
    return b + relu(a - b)


def minimum(a: Formula, b: Formula) -> Formula:
    return a - relu(a - b)


def absolute(e: Formula) -> Formula:
    return 2 * relu(e) - e


def clip(e: Formula, low: Formula | None = None, high: Formula | None = None) -> Formula:
    e = e if low is None else maximum(e, low)
    return e if high is None else minimum(e, high)


def power(e: Formula, exponent: Formula) -> Formula:
    if exponent.names or exponent.constant not in (1, 2, 3):
        raise NoFormula
    return math.prod([e] * (int(exponent.constant) - 1), start=e)


def equal(a: Formula, b: Formula) -> Formula:
    """Whether a equals b. Only a == a is supported, by which jax.numpy.logaddexp finds NaN."""
    if a != b:
        raise NoFormula
    return number(1.0)


X = Formula({(("x",),): 1.0})
# ONNX's operators. A function takes the operator's inputs, then its attributes.
OPERATORS: dict[str, Callable[..., Formula]] = {
    **{"Erf": erf, "Exp": exp, "Log": log, "Sigmoid": sigmoid, "Softplus": softplus, "Sqrt": sqrt},
    **{"Tanh": tanh, "Abs": absolute, "Clip": clip, "Relu": relu, "Reciprocal": reciprocal, "Where": where},
    "HardSigmoid": lambda e, alpha, beta: clip(alpha * e + beta, number(0), number(1)),
    "Max": lambda *arguments: functools.reduce(maximum, arguments),
    "Min": lambda *arguments: functools.reduce(minimum, arguments),
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Neg": lambda a: -a,
    "Pow": power,
    "Equal": equal,
    "Greater": lambda a, b: positive(a - b),
    "GreaterOrEqual": lambda a, b: positive(a - b),
    "Less": lambda a, b: positive(b - a),
    "LessOrEqual": lambda a, b: positive(b - a),
    "Not": lambda a: 1 - a,
    "And": lambda a, b: a * b,
    "Or": lambda a, b: a + b - a * b,
}


def multiple(a: Formula, b: Formula) -> float:
    """The number c for which a = c b, if a is a multiple of b at all."""
    return _leading(a) / _leading(b) if a.names and b.names else 1.0


def alike(a: Formula, b: Formula, tolerance: float) -> bool:
    """Whether two formulas are the same, apart from the rounding of their numbers."""

    def same_terms(one: tuple[Product, float], other: tuple[Product, float]) -> bool:
        return math.isclose(one[1], other[1], rel_tol=tolerance) and _matched(one[0], other[0], same_atoms)

    def same_atoms(one: Atom, other: Atom) -> bool:
        return one[0] == other[0] and all(
            alike(x, y, tolerance) for x, y in zip(one[1:], other[1:], strict=True)
        )

    return _matched(list(a.terms.items()), list(b.terms.items()), same_terms)


def _matched(some: Iterable[Any], others: Iterable[Any], same: Callable[[Any, Any], bool]) -> bool:
    """Whether both have the same elements, in any order."""
    rest = list(others)
    for each in some:
        found = next((i for i, other in enumerate(rest) if same(each, other)), None)
        if found is None:
            return False
        del rest[found]
    return not rest
