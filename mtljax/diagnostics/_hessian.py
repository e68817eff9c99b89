"""The largest eigenvalues of a loss's Hessian, without the Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _tree, _validate
from mtljax._jaxprs import canonical_convolutions
from mtljax.diagnostics._sharpness import normal_like


class HessianEigenvalues(NamedTuple):
  """What `hessian_eigenvalues` returns.

  Attributes:
    values: the largest eigenvalues, largest first, shape ``(num,)``.
    residuals: ``||H v - value v||`` for each, computed with one more product.
      Some eigenvalue of H is within this distance of the value.
    vectors: the unit eigenvectors v, a tree like the parameters whose leaves
      have a leading axis ``num``.
  """

  values: jax.Array
  residuals: jax.Array
  vectors: Any


def hessian_eigenvalues(
  loss_fn: Callable[..., jax.Array],
  params: Any,
  *args: Any,
  num: int = 1,
  num_iters: int = 20,
  key: jax.Array,
) -> HessianEigenvalues:
  r"""The largest eigenvalues of the Hessian of one scalar loss, by Lanczos.

  .. math::
     H q_k = \beta_{k-1} q_{k-1} + \alpha_k q_k + \beta_k q_{k+1}, \qquad
     \lambda(T) \to \lambda(H), \quad T = \mathrm{tridiag}(\beta, \alpha, \beta)

  from a random start, with every new vector made orthogonal to all earlier
  ones, twice. Products with H are forward over reverse and linearised once.
  Largest means most positive; the negative end is that of ``-loss_fn``. For
  task t of a multi-task loss give ``lambda *a: task_losses(*a)[t]``.

  The basis is a tree with a leading axis: nothing is flattened, and a sharded
  parameter stays sharded. It costs ``num_iters + num`` products, each about
  two gradients, and the memory of ``num_iters + num`` copies of the
  parameters in float32. Call it inside ``jax.jit``.

  ============================ ==============================================
  input                        result
  ============================ ==============================================
  parameters < ``num_iters``   the basis is whole, and the values are exact
                               to rounding
  start in an invariant space  a new random vector goes on outside of it
  an eigenvalue that repeats   found once; again only after such a restart
  zero Hessian                 values and residuals 0
  non-finite loss              NaN
  ============================ ==============================================

  Args:
    loss_fn: ``loss_fn(params, *args) -> loss``, a scalar, twice
      differentiable. A ReLU's kinks have no curvature here.
    params: the parameters. A complex one counts as two real ones.
    *args: the other arguments of ``loss_fn``.
    num: how many eigenvalues.
    num_iters: steps of Lanczos, at least ``num``. Read the residuals: more
      steps where they are not small against the gaps between the values.
    key: random key of the start.

  Returns:
    The `HessianEigenvalues`.

  Raises:
    ValueError: the loss is not a scalar, or ``num`` is larger than
      ``num_iters`` or the number of parameters.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mtljax.diagnostics import hessian_eigenvalues
    >>> def loss(w):
    ...   return w[0] ** 2 + 3 * w[1] ** 2 + w[0] * w[1]
    >>> key = jax.random.key(0)
    >>> got = hessian_eigenvalues(loss, jnp.ones(2), num=2, key=key)
    >>> print(got.values.round(3))
    [6.236 1.764]

  References:
    Lanczos, `An Iteration Method for the Solution of the Eigenvalue Problem
    <https://doi.org/10.6028/jres.045.026>`_, 1950; for networks, Ghorbani,
    Krishnan and Xiao, `An Investigation into Neural Net Optimization via
    Hessian Eigenvalue Density <https://arxiv.org/abs/1901.10159>`_, 2019.
  """
  _validate.in_range('num', num, 1)
  real = jax.tree.map(_tree.as_real, params)
  size = sum(x.size for x in jax.tree.leaves(real))
  steps = min(num_iters, size)
  if num > steps:
    raise ValueError(
      f'num={num} eigenvalues need num_iters of at least as many and as many '
      f'parameters; got num_iters={num_iters} and {size} parameters.'
    )

  def scalar(p):
    loss = loss_fn(jax.tree.map(_tree.like, p, params), *args)
    if jnp.shape(loss) != ():
      raise ValueError(
        f'loss_fn must return a scalar, got shape {jnp.shape(loss)}; for task '
        't of several use lambda *a: task_losses(*a)[t].'
      )
    return loss

  _, linear = jax.linearize(jax.grad(scalar), real)
  wide = jax.tree.map(
    lambda p: jnp.zeros(p.shape, _tree.accumulator(p.dtype)), real
  )

  # The Lanczos steps are a loop.
  linear = canonical_convolutions(linear)

  def product(v):
    out = linear(jax.tree.map(lambda x, p: x.astype(p.dtype), v, real))
    return jax.tree.map(lambda x, w: x.astype(w.dtype), out, wide)

  start_key, restart_key = jax.random.split(key)
  alphas, betas, basis = _lanczos(
    product, normal_like(start_key, wide), steps, restart_key
  )
  tridiagonal = (
    jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
  )
  values, coefficients = jnp.linalg.eigh(tridiagonal)
  values, coefficients = values[::-1][:num], coefficients[:, ::-1][:, :num]
  vectors = jax.tree.map(
    lambda q: jnp.einsum(
      'k...,kn->n...', q, coefficients.astype(q.dtype), precision='highest'
    ),
    basis,
  )

  def residual(pair):
    value, v = pair
    return _norm(jax.tree.map(lambda h, x: h - value * x, product(v), v))

  residuals = jax.lax.map(residual, (values, vectors))
  vectors = jax.tree.map(_tree.like, vectors, params)
  return HessianEigenvalues(values, residuals, vectors)


def _lanczos(product, start, steps: int, key: jax.Array):
  """The tridiagonal's diagonals and the basis, a tree of leading axis steps."""
  start = _unit(start)
  basis = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), start)
  dtype = jnp.result_type(*jax.tree.leaves(start))
  epsilon = jnp.finfo(dtype).eps

  def step(carry, k):
    basis, q, scale = carry
    basis = jax.tree.map(lambda b, x: b.at[k].set(x), basis, q)
    image = product(q)
    alpha = _dot(q, image)
    scale = jnp.maximum(scale, _norm(image))
    rest = _orthogonal(image, basis)
    beta = _norm(rest)
    # Rounding alone is left: the space is invariant. Go on outside of it.
    closed = beta <= 10 * epsilon * scale
    q = jax.lax.cond(
      closed,
      lambda: _unit(
        _orthogonal(normal_like(jax.random.fold_in(key, k), q), basis)
      ),
      lambda: _unit(rest),
    )
    beta = jnp.where(closed, 0, beta)
    return (basis, q, scale), (alpha, beta)

  carry = basis, start, jnp.zeros((), dtype)
  (basis, _, _), (alphas, betas) = jax.lax.scan(step, carry, jnp.arange(steps))
  return alphas, betas, basis


def _orthogonal(v, basis):
  """The vector without its part in the basis; rows not yet filled are zero."""
  for _ in range(2):
    part = sum(
      jnp.einsum('k...,...->k', b, x, precision='highest')
      for b, x in zip(jax.tree.leaves(basis), jax.tree.leaves(v), strict=True)
    )
    v = jax.tree.map(
      lambda b, x, part=part: (
        x - jnp.einsum('k...,k->...', b, part, precision='highest')
      ),
      basis,
      v,
    )
  return v


def _dot(a, b) -> jax.Array:
  return sum(
    jnp.sum(x * y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def _norm(v) -> jax.Array:
  return _tree.norm(jax.tree.leaves(v))


def _unit(v):
  norm = _norm(v)
  norm = jnp.where(norm == 0, 1, norm)
  return jax.tree.map(lambda x: x / norm.astype(x.dtype), v)
