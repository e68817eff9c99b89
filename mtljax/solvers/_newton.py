"""One damped Newton method for Nash-MTL and FairGrad."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from mtljax.solvers._normalize import row_normalize
from mtljax.solvers._qp import dot, ridged


class _Newton(NamedTuple):
  y: jax.Array
  best: jax.Array
  best_off: jax.Array
  stalled: jax.Array
  done: jax.Array
  iterations: jax.Array


def _solve(unit, start, power, used, max_iters):
  """Solves ``U v = start y^-power``, ``v = start y``; the best iterate."""
  eps = jnp.finfo(unit.dtype).eps
  matrix = ridged(unit, used)
  both = used[:, None] & used[None, :]
  eye = jnp.eye(unit.shape[0], dtype=unit.dtype)

  def step(c):
    # Relative steps: the system is scaled by v on both sides.
    v = start * c.y
    pull = v * dot(matrix, v)
    push = start * v * c.y**-power
    off = jnp.max(jnp.where(used, jnp.abs(pull / push - 1), 0))
    better = off < c.best_off
    hessian = v[:, None] * matrix * v[None, :] + jnp.diag(power * push)
    factor = (jnp.linalg.cholesky(jnp.where(both, hessian, eye)), True)
    relative = cho_solve(factor, jnp.where(used, push - pull, 0))
    size = jnp.sqrt(dot(relative, relative))
    damping = jnp.where(size > 0.25, 1 / (1 + size * (1 + power) / 2), 1)
    # Stay positive where the damping alone does not guarantee it (power < 1).
    lowest = jnp.min(relative)
    damping = jnp.minimum(damping, 0.9 / jnp.maximum(-lowest, 1e-6))
    y = c.y * (1 + damping * relative)
    # In the last, quadratic phase the residual falls until it is all rounding.
    stalled = jnp.where((size <= 0.25) & ~better, c.stalled + 1, 0)
    done = (off <= 2 * eps) | (stalled > 1) | ~jnp.all(jnp.isfinite(y))
    return _Newton(
      y=jnp.where(done, c.y, y),
      best=jnp.where(better, c.y, c.best),
      best_off=jnp.where(better, off, c.best_off),
      stalled=stalled,
      done=done,
      iterations=c.iterations + 1,
    )

  one = jnp.ones_like(start)
  carry = _Newton(
    one,
    one,
    jnp.array(jnp.inf, start.dtype),
    jnp.array(0),
    jnp.array(False),
    jnp.array(0),
  )
  return jax.lax.while_loop(
    lambda c: ~c.done & (c.iterations < max_iters), step, carry
  )


@functools.partial(jax.jit, static_argnames=('max_iters',))
def fair_newton(
  gramian: jax.Array,
  alpha: jax.Array | float = 1.0,
  mask: jax.Array | None = None,
  *,
  max_iters: int = 100,
) -> tuple[jax.Array, jax.Array]:
  r"""Solves :math:`(G w)_i = w_i^{-1/\alpha}` for :math:`w > 0`.

  It is where
  :math:`\tfrac12 w^\top G w - \sum_i w_i^{1 - 1/\alpha} / (1 - 1/\alpha)`, a
  strictly convex function, has its minimum: FairGrad's weights, and those of
  Nash-MTL for :math:`\alpha = 1`. Newton's method in
  :math:`v_i = w_i \|g_i\|`, relative to the solution for orthogonal rows,
  :math:`w_i = \|g_i\|^{-2\alpha/(\alpha+1)}`, where it starts.

  Args:
    gramian: shape ``(T, T)``.
    alpha: above 0; may be traced.
    mask: true for the rows to use, shape ``(T,)``; None means all.
    max_iters: the cap on the iterations; 5 to 15 are usual for alpha from 1
      to 2, more the further away.

  Returns:
    The weights, shape ``(T,)``, and the residual
    :math:`\max_i |w_i^{1/\alpha} (G w)_i - 1|`.

  Edge cases:

    ============================  ===========================================
    input                         answer
    ============================  ===========================================
    zero rows                     0 for them, the smaller problem's answer
                                  for the rest
    nearly singular Gramian       ``T eps`` is added to the diagonal of the
                                  unit Gramian
    0 in the hull                 (Pareto stationary) there is no solution;
                                  the ridge's weights are finite, their
                                  combination is bounded, and the residual is
                                  of order 1
    one row                       :math:`\|g\|^{-2\alpha/(\alpha+1)}`
    no row                        zeros
    NaN or infinity in a row      NaN
    ============================  ===========================================

  Examples:
    >>> w, residual = fair_newton(jnp.diag(jnp.array([1.0, 4.0])))
    >>> [round(float(x), 4) for x in w], bool(residual < 1e-6)
    ([1.0, 0.5], True)
  """
  unit, norms = row_normalize(gramian, mask)
  active = jnp.ones(norms.shape, bool) if mask is None else mask
  used = active & ~(norms <= 0)
  alpha = jnp.asarray(alpha, norms.dtype)
  count = jnp.maximum(jnp.sum(used), 1).astype(norms.dtype)
  logs = jnp.where(used, jnp.log(jnp.where(used, norms, 1)), 0)
  middle = jnp.sum(logs) / count
  # In units of the geometric mean of the norms.
  start = jnp.where(
    used, jnp.exp((1 - alpha) / (1 + alpha) * (logs - middle)), 0
  )
  out = _solve(unit, jnp.where(used, start, 1), 1 / alpha, used, max_iters)
  y = jnp.where(used, out.best, 0)
  v = start * y
  pull = dot(unit, v) / jnp.where(used, start * y ** (-1 / alpha), 1)
  residual = jnp.max(jnp.where(used, jnp.abs(pull - 1), 0))
  weights = jnp.where(used, y * jnp.exp(-2 * alpha / (1 + alpha) * logs), 0)
  finite = jnp.all(jnp.where(used, jnp.isfinite(norms), True))
  finite = finite & jnp.all(jnp.isfinite(unit)) & jnp.isfinite(alpha)
  poison = jnp.where(finite, 0, jnp.nan).astype(norms.dtype)
  return jnp.where(active, weights + poison, 0), residual + poison
