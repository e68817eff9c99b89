"""Task-based flat regions (F-MTL), and its other forms."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _labels, _tree, _validate
from mtljax._types import Aggregator
from mtljax.aggregators import _checks
from mtljax.sharpness import _common, _pairs, _points

Aggregation = Literal['separate', 'direct', 'second', 'each']
Rescale = Literal['none', 'num_tasks', 'unit']
AGGREGATIONS = ('separate', 'direct', 'second', 'each')
RESCALES = ('none', 'num_tasks', 'unit')


class FlatRegionsState(NamedTuple):
  """State of `flat_regions`."""

  loss_state: Any  # of the call whose weights `mtljax.get_weights` reads
  flat_state: Any  # of the call on the flat gradients; None without one
  pair_states: tuple[Any, ...]  # of the calls on (loss, flat)


def rescale_shared(
  rescale: Rescale,
  num_tasks: int,
  leaves: Sequence[jax.Array],
  labels: Sequence[_labels.Label],
) -> list[jax.Array]:
  """The update with its shared part on another scale."""
  shared = _points.shared_of(leaves, labels)
  if rescale == 'none' or not shared:
    return list(leaves)
  factor = jnp.asarray(num_tasks, jnp.float32)
  if rescale == 'unit':
    norm = _tree.norm(shared)
    factor = jnp.where(norm == 0, 0, 1 / jnp.where(norm == 0, 1, norm))
  return _points.put_shared(
    leaves, labels, [_tree.scale_leaf(factor, x) for x in shared]
  )


def _head_update(factor: jax.Array, head: jax.Array, drop: bool) -> jax.Array:
  """The head's gradient times what its weight made of ones."""
  keep = factor != 0
  if drop:
    keep = keep & jnp.all(jnp.isfinite(head))
  return jnp.where(keep, factor * head, 0).astype(head.dtype)


def flat_regions(
  method: Aggregator,
  *,
  rho_shared: ArrayLike = 0.05,
  rho_task: ArrayLike | None = None,
  aggregation: Aggregation = 'separate',
  ascent: _points.Ascent = 'plain',
  norms: _points.Norms = 'separate',
  perturb_heads: bool = True,
  rescale: Rescale = 'none',
  mode: _points.Mode = 'unroll',
) -> Aggregator:
  r"""Task-based flat regions: loss and flatness are aggregated apart (F-MTL).

  Each task is perturbed to its own worst point nearby, by two norms: one over
  the shared parameters, one over its own.

  .. math::
     \epsilon^t_{sh} = \rho_{sh} \frac{g^t_{sh}}{\lVert g^t_{sh} \rVert}, \quad
     \epsilon^t_{ns} = \rho_{ns} \frac{g^t_{ns}}{\lVert g^t_{ns} \rVert}, \quad
     g^{t,SAM} = \nabla L_t(\theta_{sh} + \epsilon^t_{sh},
     \theta^t_{ns} + \epsilon^t_{ns})

  .. math::
     d_{sh} = A(g^1_{sh}, \dots, g^T_{sh})
     + A(g^{1,flat}_{sh}, \dots, g^{T,flat}_{sh}), \quad
     g^{t,flat} = g^{t,SAM} - g^t, \quad d^t_{ns} = g^{t,SAM}_{ns}

  To first order, the flat gradient is that of :math:`\rho_{sh} \lVert g_{sh}
  \rVert + \rho_{ns} \lVert g_{ns} \rVert`. The calls of A keep states of their
  own and see the clean losses; their weights mean what the method says of
  them. A method that reads no gradients is called once and its weights serve
  both, so a linear method gives its update on the SAM gradients. Heads take
  their SAM gradients, weighted (if the method weights heads) by the call on
  the loss gradients. A perturbation does not change with a task's loss scale,
  so the invariance is the method's.

  The forms of ``aggregation``:

  ============== ====================================================
  form           the shared update
  ============== ====================================================
  ``'separate'`` as above, the paper's method
  ``'direct'``   :math:`A(g^{1,SAM}, \dots, g^{T,SAM})` (L-SAM)
  ``'second'``   A once more: A(A(loss gradients), A(flat gradients))
  ``'each'``     A over the tasks' A(:math:`g^t, g^{t,flat}`)
  ============== ====================================================

  ``update`` needs ``params`` and ``task_grad_fn=`` (see `mtljax.task_grad_fn`,
  on the same batch); `mtljax.training.make_train_step` gives both. Costs
  1 + T forward and 2T backward passes, and calls of A: two for ``'separate'``,
  one for ``'direct'``, three for ``'second'`` and T + 1 for ``'each'``.

  Args:
    method: the aggregator A. Those that read losses, or whose arguments are
      one a task, refuse ``'second'`` and ``'each'``: these call A on two
      gradients, with its ``max_norm`` and without its ``scale``.
    rho_shared: radius for the shared parameters, at least 0.
    rho_task: radius for each task's own parameters; None: ``rho_shared``.
    aggregation: what A is called on, see above.
    ascent: ``'plain'`` (`mtljax.normalized_ascent`), ``'adaptive'``
      (`mtljax.adaptive_ascent`), or a function from a radius to a stateless
      optax transformation.
    norms: ``'separate'``, or ``'joint'``: one norm over the shared and the
      task's own parameters together, and one radius, ``rho_shared``.
    perturb_heads: False leaves the task's own parameters where they are. That
      is another method: the second term of the gradient above is then missing.
    rescale: ``'num_tasks'`` multiplies the shared part of every result of A
      over the T tasks by T, ``'unit'`` scales it to length 1 (or leaves it
      0). Calls on two gradients are not rescaled, nor are heads.
    mode: how phase two runs: ``'unroll'`` one task after the other in the
      program, or ``'map'`` in a loop that writes over the gradients of phase
      one. Both keep about T copies of the shared parameters; ``'map'`` does
      not depend on XLA for it, but its CPU convolutions are slow in a loop.

  Returns:
    The `mtljax.Aggregator`. `mtljax.get_weights` reads the weights of the loss
    gradients (``'separate'``, ``'second'``), of the SAM gradients
    (``'direct'``) or of the tasks' combined gradients (``'each'``).

  Raises:
    TypeError: the method is not an aggregator, is itself sharpness-aware or
      needs two batches; or ``task_grad_fn`` is missing.
    ValueError: a radius is negative, an option is not one of those listed or
      has no effect beside another, the method cannot be called on two
      gradients, or the parameters are missing.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(w):
    ...   return jnp.stack([w[0] ** 2, 2 * w[1] ** 2])
    >>> tx = mtl.flat_regions(mtl.sum_losses(num_tasks=2), rho_shared=0.1)
    >>> w = jnp.array([1.0, 1.0])
    >>> losses, grads = mtl.value_and_task_grads(task_losses)(w)
    >>> update, _ = tx.update(grads, tx.init(w), w, losses=losses,
    ...                       task_grad_fn=mtl.task_grad_fn(task_losses))
    >>> print(update)
    [2.2 4.4]

  Edge cases:

  ============================== =====================================
  input                          result
  ============================== =====================================
  both radii 0                   the plain method, exactly
  a task's gradient is zero      it is not perturbed, its flat gradient is 0
  all flat gradients are zero    no update from them, ``flat_state`` stays
  parameters in bfloat16         a perturbation shorter than their spacing is
                                 rounded away: keep them in float32
  ============================== =====================================

  References:
    Phan et al., `Improving Multi-task Learning via Seeking Task-based Flat
    Regions <https://arxiv.org/abs/2211.13723>`_, 2022 (ICCV 2025). The
    authors' code has one radius and ``ascent='adaptive'`` with radius 2 on
    Multi-MNIST, there with ``norms='joint'``.
  """
  _common.check_inner('flat_regions', method)
  perturb = _points.perturb_by_norms(
    'flat_regions',
    method,
    rho_shared=rho_shared,
    rho_task=rho_task,
    ascent=ascent,
    norms=norms,
    perturb_heads=perturb_heads,
  )
  _validate.one_of('aggregation', aggregation, AGGREGATIONS)
  _validate.one_of('rescale', rescale, RESCALES)
  _validate.one_of('mode', mode, _points.MODES)
  num_tasks = method.num_tasks
  reads_no_gradients = _common.reads_no_gradients(method)
  pair = None
  if aggregation in ('second', 'each'):
    pair = _pairs.pair_method(aggregation, method)
  direct = aggregation == 'direct' or (
    aggregation == 'separate' and reads_no_gradients and rescale != 'unit'
  )
  drop = _common.drops(method)

  def init_fn(params):
    state = method.init(params)
    two_calls = aggregation in ('separate', 'second') and not reads_no_gradients
    number = {'second': 1, 'each': num_tasks}.get(aggregation, 0)
    return FlatRegionsState(
      loss_state=state,
      flat_state=_common.rekeyed(method.init(params), 1) if two_calls else None,
      pair_states=_pairs.init_pairs(pair, number, state) if pair else (),
    )

  def update_fn(
    updates,
    state,
    params=None,
    *,
    task_grad_fn,
    losses=None,
    task_mask=None,
    **extra_args,
  ):
    _common.require_params('flat_regions', params)
    leaves, treedef = jax.tree.flatten(updates)
    labels = _labels.flatten_labels(method.labels, updates, num_tasks)
    _checks.check_gradients(updates, labels, num_tasks, params)
    task_mask = _checks.checked_mask(task_mask, num_tasks)
    extra_args = {**extra_args, 'losses': losses, 'task_mask': task_mask}
    used = _points.shared_of(
      _labels.flatten_gramian_labels(method.gramian_labels, labels, updates),
      labels,
    )
    shared_of = functools.partial(_points.shared_of, labels=labels)

    def call(leaves, inner):
      update, inner = method.update(
        jax.tree.unflatten(treedef, leaves), inner, params, **extra_args
      )
      update = jax.tree.leaves(update)
      return rescale_shared(rescale, num_tasks, update, labels), inner

    def gradients_there(leaves, merge):
      return _points.replace_gradients(
        leaves,
        labels,
        params,
        task_grad_fn,
        num_tasks,
        perturb,
        merge_shared=merge,
        merge_own=lambda there, here: there,
        mode=mode,
        drop=drop,
      )

    if direct:
      sam = gradients_there(leaves, lambda there, here: there)
      update, inner = call(sam, state.loss_state)
      new = state._replace(loss_state=inner)
    elif aggregation == 'each':
      flat = gradients_there(leaves, jnp.subtract)
      rows, pair_states = _pairs.combine_each(
        pair,
        shared_of(leaves),
        shared_of(flat),
        used,
        task_mask,
        state.pair_states,
      )
      update, inner = call(
        _points.put_shared(flat, labels, rows), state.loss_state
      )
      new = state._replace(loss_state=inner, pair_states=pair_states)
    else:
      # The heads' gradients come with phase two, and the loss gradients have
      # to be done with before it: ones bring the heads' weights instead.
      ones = [
        x if label == _labels.SHARED else jnp.ones(x.shape, float)
        for x, label in zip(leaves, labels, strict=True)
      ]
      from_loss, loss_state = call(ones, state.loss_state)
      rows = _points.read_first(shared_of(leaves), shared_of(from_loss))
      flat = gradients_there(
        _points.put_shared(leaves, labels, rows), jnp.subtract
      )
      before = state.loss_state if reads_no_gradients else state.flat_state
      from_flat, flat_state = call(flat, before)
      found = _common.any_nonzero(shared_of(flat), task_mask)
      flat_part = [jnp.where(found, x, 0) for x in shared_of(from_flat)]
      flat_state = (
        None
        if reads_no_gradients
        else _common.choose(found, flat_state, state.flat_state)
      )
      loss_part, pair_states = shared_of(from_loss), state.pair_states
      if aggregation == 'second':
        shared, first = _pairs.combine_pair(
          pair, loss_part, flat_part, used, pair_states[0]
        )
        pair_states = (first,)
      else:
        shared = [a + b for a, b in zip(loss_part, flat_part, strict=True)]
      update = [
        x if label == _labels.SHARED else _head_update(x, head, drop)
        for x, head, label in zip(from_loss, flat, labels, strict=True)
      ]
      update = _points.put_shared(update, labels, shared)
      new = FlatRegionsState(loss_state, flat_state, pair_states)
    return jax.tree.unflatten(treedef, update), new

  return Aggregator(
    init_fn,
    update_fn,
    num_tasks=num_tasks,
    needs=method.needs | {'gradients', 'task_grads'},
    info=method.info,
    labels=method.labels,
    gramian_labels=method.gramian_labels,
    inner=method,
  )
