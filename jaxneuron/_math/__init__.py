"""The mathematics of the activations.

Tables:

activations.py  the table of activations: what each promises
formats.py      the table of formats, polynomials and constants
tables.py       the numbers that the C++ kernel takes from both tables

Formulas for XLA:

arithmetic.py   sums and products in two parts
elementary.py   the activations, each within one or two ULP
scaled.py       the activations with parameters; sine.py has the sine
correct.py      the correctly rounded activations
slopes.py       the first and second derivatives of the activations

To check results, without jax:

float64.py      the activations in float64, by NumPy: exact enough to check narrower formats
oracle.py       the exact results, by mpmath and exact integers, and bounds of the errors of computed results
jacobians.py    the exact Jacobian and Laplacian of a network, and bounds of their errors
"""
