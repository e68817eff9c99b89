"""CAGrad: the best worst-case direction near the mean gradient."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import MethodInfo, Weighting
from mtljax.solvers import ball_max_min
from mtljax.weightings import _common


class CAGradState(NamedTuple):
  """State of `cagrad`."""

  residual: jax.Array  # of the last solve, float32
  rng_key: jax.Array | None = None  # typed key; None without a subset


def _draw(
  rng_key: jax.Array, mask: jax.Array, subset: int
) -> tuple[jax.Array, jax.Array]:
  """So many different tasks of those present, absent ones after them.

  Returns:
    The key of the next step, and the tasks, ``(subset,)``.
  """
  key, draw = jax.random.split(rng_key)
  order = jax.random.uniform(draw, mask.shape)
  return key, jnp.argsort(jnp.where(mask, order, 2))[:subset]


def _mixtures(drawn: jax.Array, mask: jax.Array) -> jax.Array:
  """Each task drawn by itself, then the mean of the others, over tasks."""
  alone = jax.nn.one_hot(drawn, len(mask), dtype=bool) & mask[None]
  others = mask & ~jnp.any(alone, axis=0)
  rows = jnp.concatenate([alone, others[None]]).astype(float)
  return rows / jnp.maximum(jnp.sum(rows, axis=1, keepdims=True), 1)


def cagrad(
  *,
  c: ArrayLike = 0.4,
  rescale: Literal['none', 'c_squared', 'c'] = 'none',
  subset: int | None = None,
) -> Weighting:
  r"""Conflict-averse gradient descent.

  With :math:`g_0` the mean of the gradients, the update is

  .. math:: d = \arg\max_d \min_t g_t^\top d
     \quad\text{s.t.}\quad \|d - g_0\| \le c \|g_0\|,

  so :math:`w_t = 1/T + c \|g_0\| w^*_t / \|g_{w^*}\|`, where :math:`w^*`
  minimises :math:`g_w^\top g_0 + c \|g_0\| \|g_w\|` over the simplex. The
  weights are not negative and sum to 1 or more. ``c = 0`` is the mean; a large
  ``c`` has the direction of `mgda`. For ``c < 1`` it converges to a minimum of
  the mean loss. Heads are not weighted.

  With ``subset``, the paper's speedup (CAGrad-Fast): at every step so many
  tasks S are drawn, and the others make one demand, by their mean gradient,

  .. math:: \max_d \min \left( \frac{T g_0 - \sum_{i \in S} g_i}{T - |S|}^\top
     d,\ \min_{i \in S} g_i^\top d \right)
     \quad\text{s.t.}\quad \|d - g_0\| \le c \|g_0\|.

  Scaling a task's loss changes the update's direction (invariance
  ``'none'``). Costs the Gramian (T backward passes) and a search of a few
  steps, each a quadratic program of size T; two tasks have a closed form.
  With ``subset``, `mtljax.training.make_train_step` takes, on its route
  ``'gramian'``, which is then the default, ``subset + 1`` backward passes in
  place of T, whose gradients it keeps; the cosines that it reports are those
  of the tasks drawn and of the mean of the others. Every other route, and the
  optax face, takes all T to the same update.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1 + c
  a zero row                1/T for it; it counts in the mean and places no
                            demand on ``d``, so it does not stop the others
  all rows zero, mean 0     1/T
  equal rows                they share the second term equally
  0 in the hull, c >= 1     finite; ``d`` harms no task, and is 0 if some
                            combination with all weights positive is 0
  absent tasks              0, the smaller problem's answer for the rest; none
                            is drawn
  ``subset`` >= T - 1       what there is without it
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    c: the radius relative to the mean's norm, at least 0. In the paper 0.4 for
      NYUv2 and 0.2 for Cityscapes.
    rescale: what ``d`` is divided by: ``'none'`` nothing (the paper),
      ``'c_squared'`` :math:`1 + c^2`, ``'c'`` :math:`1 + c`.
    subset: :math:`|S|`, how many tasks are drawn at every step, from 1 to T;
      None: all. In the paper 4 of 10, and 8 of 50.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian. Its state has the residual of
    the last solve, see `mtljax.solvers.ball_max_min`; with ``subset`` also a
    key.

  Raises:
    ValueError: ``c`` is negative, ``rescale`` is not known, or ``subset`` is
      not from 1 to T.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.cagrad(c=0.4)
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 4.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 3) for w in weights]
    [0.947, 0.5]

  References:
    Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
    <https://arxiv.org/abs/2110.14048>`_, 2021
  """
  _validate.in_range('c', c, 0)
  _validate.one_of('rescale', rescale, ('none', 'c_squared', 'c'))

  if subset is not None:
    subset = _validate.integer('subset', subset, 1)

  def init_fn(num_tasks, key=None):
    if subset is None:
      return CAGradState(residual=_common.zero_residual())
    if subset > num_tasks:
      raise ValueError(
        f'subset={subset} must be at most num_tasks={num_tasks}; leave it out '
        'to see all tasks.'
      )
    key = jax.random.key(0) if key is None else jax.random.clone(key)
    return CAGradState(residual=_common.zero_residual(), rng_key=key)

  def mixtures_fn(state, mask):
    return _mixtures(_draw(state.rng_key, mask, subset)[1], mask)

  def update_fn(stats, state):
    gramian, mask = _common.gramian_and_mask(stats, 'cagrad')
    radius = jnp.asarray(c, gramian.dtype)
    averages = None
    if subset is not None:
      key, drawn = _draw(state.rng_key, mask, subset)
      state = state._replace(rng_key=key)
      rows = _mixtures(drawn, mask).astype(gramian.dtype)
      averages = jnp.matmul((rows > 0).astype(rows.dtype).T, rows)
      gramian = averages @ gramian @ averages
    extra, residual = ball_max_min(gramian, radius, mask)
    if averages is not None:
      extra = extra @ averages
    present = mask.astype(gramian.dtype)
    weights = present / jnp.maximum(jnp.sum(present), 1) + extra
    if rescale == 'c_squared':
      weights = weights / (1 + radius**2)
    elif rescale == 'c':
      weights = weights / (1 + radius)
    return weights, state._replace(residual=residual.astype(jnp.float32))

  return Weighting(
    init_fn,
    update_fn,
    frozenset({'gramian'}),
    info=MethodInfo(
      name='cagrad',
      paper='Liu et al., 2021, https://arxiv.org/abs/2110.14048',
      random=subset is not None,
    ),
    mixtures=None if subset is None else mixtures_fn,
  )
