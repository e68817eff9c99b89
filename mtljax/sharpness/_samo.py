"""SAMO: one perturbation of global and local directions, around any method."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate
from mtljax._types import Aggregator
from mtljax.aggregators import _aggregate, _checks
from mtljax.sharpness import _ascent, _common, _points

Normalize = Literal['layer', 'none']
Leaves = list[jax.Array]


class SamoState(NamedTuple):
  """State of `samo`."""

  inner_state: Any
  rng_key: jax.Array


def _draw(key: jax.Array, leaves: Leaves) -> Leaves:
  """Standard normal numbers in the shapes of the leaves."""

  def normal(i, x):
    real = jax.eval_shape(_tree.as_real, x)
    drawn = jax.random.normal(
      jax.random.fold_in(key, i), real.shape, _tree.accumulator(real.dtype)
    )
    return _tree.like(drawn, x)

  return [normal(i, x) for i, x in enumerate(leaves)]


def _rescale(local: jax.Array, like: jax.Array) -> jax.Array:
  """The local direction of a leaf with the length of the global one."""
  norm = _tree.norm([local])
  factor = jnp.where(
    norm == 0, 0, _tree.norm([like]) / jnp.where(norm == 0, 1, norm)
  )
  return factor * local


def samo(
  method: Aggregator,
  *,
  rho: ArrayLike = 0.001,
  beta: ArrayLike = 0.5,
  smoothing: ArrayLike = 0.01,
  normalize: Normalize = 'layer',
  ascent: _ascent.Ascent = 'plain',
  key: jax.Array | int = 0,
) -> Aggregator:
  r"""The method at points between the common and each task's own (SAMO).

  The global direction is the gradient of the mean loss. A task's local one is
  not its gradient but a zeroth-order estimate of it from two forward passes,
  along one random direction over the shared parameters:

  .. math::
     \hat g_t = \frac{L_t(\theta_{sh} + \mu z_t) - L_t(\theta_{sh} - \mu z_t)}
     {2 \mu} z_t, \quad z_t \sim N(0, I), \quad
     v^l_t = (1 - \beta) g^l_0
     + \beta \lVert g^l_0 \rVert \frac{\hat g^l_t}{\lVert \hat g^l_t \rVert}

  for each layer (parameter) :math:`l`, and then

  .. math:: \epsilon_t = \rho \frac{v_t}{\lVert v_t \rVert}, \quad
     d = A\bigl(\nabla L_1(\theta + \epsilon_1), \dots,
     \nabla L_T(\theta + \epsilon_T)\bigr)

  A head moves along its own gradient, by a norm of its own and the same
  radius. As each layer is rescaled, only the sign of the difference counts:
  :math:`\mu` and the scale of the loss do not, but for rounding. The
  published algorithm fixes this much; heads, the two-sided difference and the
  norms are as in the authors' code.

  The method sees the clean losses, and its weights are those of the SAM
  gradients. ``update`` needs ``params`` and ``task_grad_fn=`` (see
  `mtljax.task_grad_fn`); of the per-task gradients it is given, it uses the
  sum. In `mtljax.training.make_train_step`, which takes that sum alone, costs
  1 + 3T forward and 1 + T backward passes; under `jax.jit` only the losses
  are computed where only they are used. The forward passes are those of
  training: batch statistics, dropout as in the other phase.

  Args:
    method: the aggregator A.
    rho: radius, at least 0.
    beta: share of the local direction, at least 0 and at most 1.
    smoothing: :math:`\mu`, above 0.
    normalize: ``'layer'`` as above, or ``'none'``: :math:`(1 - \beta) g_0 +
      \beta \hat g_t`, as the authors' code for NYUv2 has it.
    ascent: ``'plain'``, ``'adaptive'`` or a function of the radius, as for
      `mtljax.flat_regions`.
    key: seed or typed key of the directions.

  Returns:
    The `mtljax.Aggregator`.

  Raises:
    TypeError: the method is not an aggregator, is itself sharpness-aware or
      needs two batches; or ``task_grad_fn`` is missing.
    ValueError: an option is out of range or not one of those listed, the
      method drops non-finite tasks, or the parameters are missing.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(w):
    ...   return jnp.stack([w[0] ** 2, 2 * w[1] ** 2])
    >>> tx = mtl.samo(mtl.mean(num_tasks=2), rho=0.1, beta=0.0)
    >>> w = jnp.array([1.0, 0.0])
    >>> losses, grads = mtl.value_and_task_grads(task_losses)(w)
    >>> update, _ = tx.update(grads, tx.init(w), w, losses=losses,
    ...                       task_grad_fn=mtl.task_grad_fn(task_losses))
    >>> print(update)
    [1.1 0. ]

  Edge cases:

  ============================== =====================================
  input                          result
  ============================== =====================================
  ``rho`` 0                      the plain method, up to rounding
  ``beta`` 0                     the common perturbation, as `mtljax.sam` but
                                 with norms of their own for the heads
  equal losses at both points    no local part
  a layer's global gradient 0    the layer is not perturbed (``'layer'``)
  parameters in bfloat16         steps are rounded away: keep them in float32
  ============================== =====================================

  References:
    Ban et al., `SAMO: A Lightweight Sharpness-Aware Approach for Multi-Task
    Optimization with Joint Global-Local Perturbation
    <https://arxiv.org/abs/2507.07883>`_, 2025. The defaults of ``rho``,
    ``beta`` and ``smoothing`` are the authors' for NYUv2.
  """
  _common.check_inner('samo', method)
  _common.refuse_drop_task('samo', method)
  _validate.refuse_narrow(rho=rho, beta=beta, smoothing=smoothing)
  _validate.in_range('rho', rho, 0)
  _validate.in_range('beta', beta, 0, 1)
  _validate.in_range('smoothing', smoothing, 0, open_low=True)
  _validate.one_of('normalize', normalize, ('layer', 'none'))
  rule = _ascent.make_rule(ascent, rho)
  _aggregate.fresh_key(key)
  num_tasks = method.num_tasks

  def init_fn(params):
    return SamoState(
      inner_state=method.init(params), rng_key=_aggregate.fresh_key(key)
    )

  def local_direction(places, loss_at, key):
    """The zeroth-order estimate of one task's gradient."""
    normal = _draw(key, places)
    ahead = loss_at([smoothing * z for z in normal])
    behind = loss_at([-smoothing * z for z in normal])
    slope = (ahead - behind) / (2 * smoothing)
    return _tree.conjugate([slope * z for z in normal])

  def from_sum(
    summed,
    state,
    params=None,
    *,
    task_grad_fn,
    losses=None,
    task_mask=None,
    **extra_args,
  ):
    """The update, given the gradient of the sum of the losses."""
    _common.require_params('samo', params)
    leaves, treedef = jax.tree.flatten(summed)
    values = jax.tree.leaves(params)
    labels = _labels.flatten_labels(method.labels, summed, num_tasks)
    task_mask = _checks.checked_mask(task_mask, num_tasks)
    present = num_tasks if task_mask is None else jnp.sum(task_mask)
    mean = [
      x.astype(_tree.accumulator(x.dtype)) / jnp.maximum(present, 1)
      for x in _points.shared_of(leaves, labels)
    ]
    places = _points.shared_of(values, labels)
    rng_key, step_key = jax.random.split(state.rng_key)

    def gradients(t):
      own = _points.own_of(leaves, labels, t)
      own_places = _points.own_of(values, labels, t)

      def at(moves, own_moves):
        point = _points.move(values, labels, t, moves, own_moves)
        return task_grad_fn(jax.tree.unflatten(treedef, point), t)

      stay = [jnp.zeros_like(x) for x in own_places]
      local = local_direction(
        places,
        lambda moves: at(moves, stay)[0],
        jax.random.fold_in(step_key, t),
      )
      if normalize == 'layer':
        local = [_rescale(a, b) for a, b in zip(local, mean, strict=True)]
      mixed = [
        (1 - beta) * b + beta * a for a, b in zip(local, mean, strict=True)
      ]
      return at(
        _ascent.perturbation(rule, mixed, places),
        _ascent.perturbation(rule, own, own_places),
      )[1]

    update, inner_state = method.update(
      _common.stack_tasks([gradients(t) for t in range(num_tasks)], labels),
      state.inner_state,
      params,
      losses=losses,
      task_mask=task_mask,
      **extra_args,
    )
    return update, SamoState(inner_state, rng_key)

  def update_fn(
    updates, state, params=None, *, task_grad_fn, task_mask=None, **extra_args
  ):
    _common.require_params('samo', params)
    return from_sum(
      _common.summed_gradients(method, updates, params, task_mask),
      state,
      params,
      task_grad_fn=task_grad_fn,
      task_mask=task_mask,
      **extra_args,
    )

  return Aggregator(
    init_fn,
    update_fn,
    num_tasks=num_tasks,
    needs=method.needs | {'gradients', 'task_grads'},
    info=method.info,
    labels=method.labels,
    gramian_labels=method.gramian_labels,
    inner=method,
    update_from_sum=from_sum,
  )
