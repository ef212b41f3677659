"""The mathematics of the activations.

formats.py     one table of formats, polynomials and constants; the C++ header is made from it
arithmetic.py  sums and products in two parts, for XLA
elementary.py  the activations, each within an ULP or two
correct.py     the correctly rounded ones
slopes.py      the first and second derivatives of the activations
float64.py     the activations in float64 by NumPy, where float64 is enough of a truth
oracle.py      the truth by mpmath and exact integers, and the errors that results may have; never uses jax
jacobians.py   the same of a network's Jacobian and Laplacian
"""
