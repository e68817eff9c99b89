r"""TFCL, reconstructed from its abstract and its predecessor's code.

Task-feature collaborative learning fits linear tasks whose weights fall into
groups of tasks and features, so that tasks of different groups share nothing.
Public are the abstract and the code of the authors' earlier method, which has
the spectral regulariser. The constants, the exact penalties of the extension
and the loop are not, and stand here as options:

.. math:: \min_{W,\,U \in \Gamma} \sum_t J_t(w_t)
   + \alpha \langle L(|W|), U \rangle + \frac{\beta}{2} \|W\|_F^2
   + \frac{\gamma}{2} \|U\|_F^2, \qquad
   \Gamma = \{0 \preceq U \preceq I,\; \mathrm{tr}\, U = k\}

with L the Laplacian of the bipartite graph of features and tasks. It has k
eigenvalues of zero where the graph falls into k parts, and the least of the
second term over U is :math:`\alpha` times the sum of its k smallest.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate

__all__ = [
  'QuadraticLosses',
  'TFCLFit',
  'auc_losses',
  'bipartite_laplacian',
  'fit',
  'group_penalty',
  'squared_losses',
]

_HIGHEST = jax.lax.Precision.HIGHEST
_BISECTIONS = 60


class QuadraticLosses(NamedTuple):
  r"""Losses :math:`\frac12 w_t^\top A_t w_t - b_t^\top w_t + c_t` of T tasks.

  Attributes:
    curvature: A, shape ``(T, D, D)``, symmetric and without negative
      eigenvalues.
    linear: b, shape ``(T, D)``.
    constant: c, shape ``(T,)``.
  """

  curvature: jax.Array
  linear: jax.Array
  constant: jax.Array


class TFCLFit(NamedTuple):
  """What `fit` returns.

  Attributes:
    weights: of the tasks, the sum of the parts, shape ``(D, T)``.
    consensus: the part that all tasks have, ``(D,)``; zeros without.
    grouped: the part in groups, ``(D, T)``.
    personal: the part of single tasks, ``(D, T)``; zeros without.
    membership: U, shape ``(D + T, D + T)``.
    objective: before each step, and after the last, ``(num_steps + 1,)``; NaN
      behind it.
    change: of the parts in the last step, by their norm, a scalar.
    steps: that were taken, int32.
  """

  weights: jax.Array
  consensus: jax.Array
  grouped: jax.Array
  personal: jax.Array
  membership: jax.Array
  objective: jax.Array
  change: jax.Array
  steps: jax.Array


def _examples(features, labels, mask):
  features, labels = jnp.asarray(features, float), jnp.asarray(labels, float)
  if features.ndim != 3 or labels.shape != features.shape[:2]:
    raise ValueError(
      f'features has shape {features.shape} and labels {labels.shape}: they '
      'must be (T, N, D) and (T, N).'
    )
  if mask is None:
    return features, labels, jnp.ones_like(labels)
  mask = jnp.asarray(mask)
  if mask.shape != labels.shape:
    raise ValueError(
      f'mask has shape {mask.shape}: it must be that of labels, {labels.shape}.'
    )
  # What is masked may be NaN.
  features = jnp.where(mask[..., None], features, 0)
  return features, jnp.where(mask, labels, 0), mask.astype(labels.dtype)


def squared_losses(
  features: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> QuadraticLosses:
  r"""Half the mean squared error of each task.

  .. math:: J_t(w) = \frac{1}{2 n_t} \sum_i (x_i^\top w - y_i)^2

  Args:
    features: shape ``(T, N, D)``; for an intercept, one of them is 1.
    labels: shape ``(T, N)``.
    mask: shape ``(T, N)``, where there is an example; None: everywhere. A task
      without one has a loss of zero.

  Returns:
    The `QuadraticLosses`.

  Raises:
    ValueError: a shape does not fit.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax.contrib import tfcl
    >>> losses = tfcl.squared_losses(jnp.ones((1, 2, 1)), jnp.array([[1., 3.]]))
    >>> losses.linear.tolist(), losses.constant.tolist()
    ([[2.0]], [2.5])
  """
  features, labels, mask = _examples(features, labels, mask)
  weights = mask / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
  return QuadraticLosses(
    curvature=_moments(features, weights),
    linear=jnp.einsum('tn,tnd->td', weights * labels, features),
    constant=0.5 * jnp.sum(weights * labels**2, axis=1),
  )


def auc_losses(
  features: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> QuadraticLosses:
  r"""Half the mean square of what a pair's difference lacks to 1.

  .. math:: J_t(w) = \frac{1}{2 n_+ n_-} \sum_{i+, j-}
     (1 - (x_i - x_j)^\top w)^2

  A surrogate of one minus the area under the curve, in time linear in N.

  Args:
    features: shape ``(T, N, D)``. What is the same in all examples, as an
      intercept, has no effect.
    labels: shape ``(T, N)``; positive where above 0.
    mask: shape ``(T, N)``, where there is an example; None: everywhere. A task
      without a positive, or without a negative, has a loss of zero.

  Returns:
    The `QuadraticLosses`.

  Raises:
    ValueError: a shape does not fit.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax.contrib import tfcl
    >>> features = jnp.array([[[1.0], [3.0], [4.0]]])
    >>> losses = tfcl.auc_losses(features, jnp.array([[0, 1, 1]]))
    >>> losses.linear.tolist(), losses.curvature.tolist()
    ([[2.5]], [[[6.5]]])
  """
  features, labels, mask = _examples(features, labels, mask)
  sides = []
  for side in (labels > 0, labels <= 0):
    chosen = mask * side
    count = jnp.sum(chosen, axis=1)
    weights = chosen / jnp.maximum(count, 1)[:, None]
    mean = jnp.einsum('tn,tnd->td', weights, features)
    sides.append((count, mean, _moments(features, weights)))
  (above, mean, square), (below, other, other_square) = sides
  cross = mean[:, :, None] * other[:, None, :]
  there = ((above > 0) & (below > 0)).astype(features.dtype)
  curvature = square + other_square - cross - jnp.swapaxes(cross, 1, 2)
  return QuadraticLosses(
    curvature=there[:, None, None] * curvature,
    linear=there[:, None] * (mean - other),
    constant=0.5 * there,
  )


def _moments(features: jax.Array, weights: jax.Array) -> jax.Array:
  return jnp.einsum(
    'tn,tnd,tne->tde', weights, features, features, precision=_HIGHEST
  )


def bipartite_laplacian(weights: ArrayLike) -> jax.Array:
  r"""The Laplacian of the graph of features and tasks.

  An edge from a feature to a task is as heavy as the absolute weight. The
  number of zero eigenvalues is that of the graph's connected parts, a feature
  or task without edges counting as one.

  Args:
    weights: shape ``(D, T)``.

  Returns:
    Shape ``(D + T, D + T)``, the features first.

  Raises:
    ValueError: ``weights`` is not a matrix.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax.contrib import tfcl
    >>> tfcl.bipartite_laplacian(jnp.array([[-2.0]])).tolist()
    [[2.0, -2.0], [-2.0, 2.0]]
  """
  edges = jnp.abs(jnp.asarray(weights))
  if edges.ndim != 2:
    raise ValueError(f'weights has shape {edges.shape}: it must be (D, T).')
  rows, columns = edges.shape
  matrix = jnp.zeros((rows + columns,) * 2, edges.dtype)
  matrix = matrix.at[:rows, rows:].set(-edges).at[rows:, :rows].set(-edges.T)
  degrees = jnp.concatenate([edges.sum(axis=1), edges.sum(axis=0)])
  return matrix + jnp.diag(degrees)


def group_penalty(weights: ArrayLike, num_groups: int) -> jax.Array:
  r"""The sum of the k smallest eigenvalues of the graph's Laplacian.

  It is zero where the weights fall into k groups or more.

  Args:
    weights: shape ``(D, T)``.
    num_groups: k, from 1 to D + T.

  Returns:
    A scalar.

  Raises:
    ValueError: ``weights`` is not a matrix or ``num_groups`` does not fit.

  Examples:
    >>> import jax.numpy as jnp
    >>> from mtljax.contrib import tfcl
    >>> apart = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> round(abs(float(tfcl.group_penalty(apart, 2))), 5)
    0.0
    >>> float(tfcl.group_penalty(apart + 0.1, 2)) > 0.1
    True
  """
  laplacian = bipartite_laplacian(weights)
  num_groups = _count(num_groups, len(laplacian))
  return jnp.sum(jnp.linalg.eigvalsh(laplacian)[:num_groups])


def _count(num_groups: int, nodes: int) -> int:
  num_groups = _validate.integer('num_groups', num_groups, 1)
  if num_groups > nodes:
    raise ValueError(
      f'num_groups={num_groups} is more than the {nodes} features and tasks.'
    )
  return num_groups


def fit(
  losses: QuadraticLosses,
  num_groups: int,
  *,
  strength: ArrayLike,
  ridge: ArrayLike = 1e-3,
  smoothing: ArrayLike = 0.0,
  consensus: bool = False,
  personal: ArrayLike | None = None,
  num_steps: int = 1000,
  tolerance: ArrayLike = 1e-6,
) -> TFCLFit:
  r"""Fits the tasks by turns: U by eigenvectors, the weights by a prox step.

  U has the k eigenvectors of the smallest eigenvalues (all of them, weighted,
  with ``smoothing``). Then

  .. math:: w_t \leftarrow \frac{S_{\alpha D_t / \ell_t}
     (w_t - \nabla J_t(w_t) / \ell_t)}{1 + \beta / \ell_t}, \qquad
     D_{it} = U_{ii} + U_{D+t, D+t} - 2 U_{i, D+t}

  with S the soft threshold and :math:`\ell_t` the largest curvature. Neither
  turn makes the objective larger. In the extension :math:`w_t = \theta +
  g_t + p_t`: what all tasks share, the part in groups, and a part of single
  tasks whose norms :math:`\sum_t \|p_t\|` are penalised, so that it is there
  for few. The weights begin at those of ridge regression.

  ============================  ==============================================
  input                         result
  ============================  ==============================================
  strength 0                    ridge regression, task by task
  a task without examples       zeros in its grouped and personal parts
  one group, smoothing 0        ridge regression: one eigenvalue is always 0
  more parts than groups        nothing more is penalised
  NaN or infinity               NaN; one step is taken
  ============================  ==============================================

  Args:
    losses: of the tasks, `squared_losses` or `auc_losses`.
    num_groups: k, from 1 to D + T. A feature that no task needs is a part of
      its own.
    strength: :math:`\alpha`, at least 0, in units of a loss by a weight.
    ridge: :math:`\beta`, at least 0.
    smoothing: :math:`\gamma`, at least 0. Above 0 U is unique, and goes
      smoothly with the weights.
    consensus: whether there is a part that all tasks have.
    personal: the penalty on personal parts, at least 0; None: there are none.
    num_steps: the most that are taken.
    tolerance: it ends where the change of a step, by the norm of the parts, is
      at most this.

  Returns:
    The `TFCLFit`. Whether it has converged is in ``change``.

  Raises:
    ValueError: shapes do not fit or an argument is out of range.

  Examples:
    >>> import jax, jax.numpy as jnp
    >>> from mtljax.contrib import tfcl
    >>> truth = jnp.array([[1., 1., 0., 0.], [0., 0., -1., 2.]])  # two groups
    >>> x = jax.random.normal(jax.random.key(0), (4, 50, 2))
    >>> y = jnp.einsum('tnd,dt->tn', x, truth)
    >>> found = tfcl.fit(tfcl.squared_losses(x, y), 2, strength=0.01)
    >>> jnp.round(found.weights, 1).tolist() == truth.tolist()
    True

  References:
    Yang et al., `Task-Feature Collaborative Learning with Application to
    Personalized Attribute Prediction <https://arxiv.org/abs/2004.13930>`_,
    2020 (the idea); Yang et al., `Generalized Block-Diagonal Structure Pursuit
    <https://github.com/joshuaas/GBDSP-NeurIPS19>`_, 2019 (its code)
  """
  losses = QuadraticLosses(*(jnp.asarray(x, float) for x in losses))
  shape = losses.linear.shape
  if losses.linear.ndim != 2 or (
    losses.curvature.shape != (*shape, shape[1])
    or losses.constant.shape != shape[:1]
  ):
    raise ValueError(
      f'losses has shapes {[x.shape for x in losses]}: they must be (T, D, D), '
      '(T, D) and (T,).'
    )
  _validate.in_range('strength', strength, 0)
  _validate.in_range('ridge', ridge, 0)
  _validate.in_range('smoothing', smoothing, 0)
  _validate.in_range('tolerance', tolerance, 0)
  if personal is not None:
    _validate.in_range('personal', personal, 0)
  _validate.flag('consensus', consensus)
  return _fit(
    losses,
    tuple(jnp.asarray(x, float) for x in (strength, ridge, smoothing)),
    jnp.asarray(0.0 if personal is None else personal, float),
    jnp.asarray(tolerance, float),
    num_groups=_count(num_groups, sum(shape)),
    consensus=consensus,
    personal=personal is not None,
    num_steps=_validate.integer('num_steps', num_steps, 1),
  )


class _Parts(NamedTuple):
  consensus: jax.Array  # (D,)
  grouped: jax.Array  # (D, T)
  personal: jax.Array  # (D, T)

  def total(self) -> jax.Array:
    return self.consensus[:, None] + self.grouped + self.personal


def _capped(values: jax.Array, total: int) -> jax.Array:
  """The nearest numbers between 0 and 1 that sum to ``total``."""

  def halve(_, ends):
    low, high = ends
    middle = (low + high) / 2
    small = jnp.sum(jnp.clip(values + middle, 0, 1)) < total
    return jnp.where(small, middle, low), jnp.where(small, high, middle)

  ends = -jnp.max(values), 1 - jnp.min(values)
  low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, ends)
  return jnp.clip(values + (low + high) / 2, 0, 1)


@functools.partial(
  jax.jit, static_argnames=('num_groups', 'consensus', 'personal', 'num_steps')
)
def _fit(
  losses,
  strengths,
  own,
  tolerance,
  *,
  num_groups,
  consensus,
  personal,
  num_steps,
) -> TFCLFit:
  strength, ridge, smoothing = strengths
  curvature, linear, constant = losses
  count, size = linear.shape
  # Of the loss in each task; of several parts the bound is their number.
  bound = jnp.linalg.eigvalsh(curvature)[:, -1]
  bound = (1 + consensus + personal) * jnp.maximum(bound, 1e-12)

  def smooth(parts):
    w = parts.total().T
    return jnp.sum(
      0.5 * jnp.einsum('td,tde,te->t', w, curvature, w, precision=_HIGHEST)
      - jnp.sum(linear * w, axis=1)
      + constant
    )

  def rest(parts, membership, apart):
    squares = jnp.sum(parts.grouped**2) + jnp.sum(parts.consensus**2)
    return (
      strength * jnp.sum(apart * jnp.abs(parts.grouped))
      + ridge / 2 * squares
      + own * jnp.sum(jnp.linalg.norm(parts.personal, axis=0))
      + smoothing / 2 * jnp.sum(membership**2)
    )

  def member(parts):
    values, vectors = jnp.linalg.eigh(bipartite_laplacian(parts.grouped))
    first = jnp.arange(count + size) < num_groups
    safe = jnp.where(smoothing > 0, smoothing, 1)
    spread = _capped(-strength * values / safe, num_groups)
    shares = jnp.where(smoothing > 0, spread, first.astype(values.dtype))
    membership = jnp.matmul(
      vectors * shares[None], vectors.T, precision=_HIGHEST
    )
    own_ = jnp.diag(membership)
    apart = own_[:size, None] + own_[None, size:] - 2 * membership[:size, size:]
    return membership, jnp.maximum(apart, 0)

  def advance(parts, apart):
    slope = jax.grad(smooth)(parts)
    moved = parts.grouped - slope.grouped / bound[None]
    limit = strength * apart / bound[None]
    grouped = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - limit, 0)
    common, single = parts.consensus, parts.personal
    if consensus:
      total = jnp.sum(bound)
      common = (common - slope.consensus / total) / (1 + ridge / total)
    if personal:
      single = single - slope.personal / bound[None]
      norms = jnp.linalg.norm(single, axis=0)
      safe = jnp.where(norms > 0, norms, 1)
      single = single * jnp.maximum(1 - own / bound / safe, 0)[None]
    return _Parts(common, grouped / (1 + ridge / bound)[None], single)

  def go_on(carry):
    _, _, _, _, change, step = carry
    # NaN is no reason to go on.
    return (step == 0) | ((change > tolerance) & (step < num_steps))

  def turn(carry):
    parts, _, apart, objective, _, step = carry
    new = advance(parts, apart)
    membership, apart = member(new)
    value = smooth(new) + rest(new, membership, apart)
    moved = jax.tree.map(jnp.subtract, new, parts)
    change = _norm(moved) / jnp.maximum(_norm(new), 1e-12)
    objective = objective.at[step + 1].set(value)
    return new, membership, apart, objective, change, step + 1

  eye = jnp.eye(size, dtype=linear.dtype)
  start = jnp.linalg.solve(
    curvature + jnp.maximum(ridge, 1e-6) * eye[None], linear[..., None]
  )[..., 0].T
  common = jnp.mean(start, axis=1) if consensus else jnp.zeros(size)
  parts = _Parts(common, start - common[:, None], jnp.zeros_like(start))
  membership, apart = member(parts)
  objective = jnp.full(num_steps + 1, jnp.nan)
  objective = objective.at[0].set(
    smooth(parts) + rest(parts, membership, apart)
  )
  carry = parts, membership, apart, objective, jnp.asarray(jnp.inf), 0
  carry = jax.lax.while_loop(go_on, turn, carry)
  parts, membership, _, objective, change, steps = carry
  return TFCLFit(
    weights=parts.total(),
    consensus=parts.consensus,
    grouped=parts.grouped,
    personal=parts.personal,
    membership=membership,
    objective=objective,
    change=change,
    steps=jnp.asarray(steps, jnp.int32),
  )


def _norm(parts: _Parts) -> jax.Array:
  return jnp.sqrt(sum(jnp.sum(x**2) for x in parts))
