"""Gradients of every sample and task, and their inner products."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import _labels, _tree, _validate
from mtljax.gradients import (
  _gramian,
  _kernels,
  _layerwise,
  _proven,
  _pullback,
)
from mtljax.gradients._passes import Passes, make_passes
from mtljax.gradients._pullback import LossFn


def _of_one(sample: Any) -> Any:
  """A batch of one."""
  return jax.tree.map(lambda x: x[None], sample)


def _pull_fn(fun, params, args, labels, has_aux, watch=False):
  """From one sample to its pass."""

  def pull(sample):
    return _pullback.make_pullback(
      fun,
      params,
      (_of_one(sample), *args),
      labels=labels,
      has_aux=has_aux,
      watch=watch,
    )

  return pull


def value_and_sample_grads(
  fun: LossFn,
  *,
  labels: _labels.Labels | None = None,
  has_aux: bool = False,
) -> Callable[..., tuple[jax.Array, Any]]:
  """Losses and gradients of every sample and task of a batch.

  The gradient of one sample is that of ``fun`` on a batch of one. A network
  with batch statistics must be in evaluation mode; the losses must be means
  over samples if the mean over samples is to be the batch's gradient.

  Memory is S T copies of the shared parameters: give it parts of a batch, or
  take `value_and_sample_gramian`, which works in chunks.

  Args:
    fun: the losses, in any form of `mtljax.value_and_task_grads`.
    labels: see `mtljax.label_params`; None: all parameters are shared.
    has_aux: whether the functions return ``(loss, aux)``; ``aux`` is dropped.

  Returns:
    A function ``(params, batch, *args, **kwargs) -> (losses, grads)``:
    ``losses`` has shape ``(S, T)``; leaves of ``grads`` have shape ``(S, T,
    *p.shape)`` where they are shared, and ``(S, *p.shape)`` elsewhere.

  Raises:
    ValueError: as `mtljax.value_and_task_grads`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(w, x):
    ...   return jnp.stack([jnp.mean(x @ w), jnp.mean((x @ w) ** 2)])
    >>> grad_fn = mtl.value_and_sample_grads(task_losses)
    >>> losses, grads = grad_fn(jnp.ones(2), jnp.eye(2))
    >>> print(losses.shape, grads[0])
    (2, 2) [[1. 0.]
     [2. 0.]]
  """
  passes = make_passes('auto')

  def value_and_grads(params, batch, *args, **kwargs):
    bound = _pullback.bind(fun, kwargs)
    pull = _pull_fn(bound, params, args, labels, has_aux)

    def one(sample):
      pullback = pull(sample)
      return pullback.losses, pullback.task_grads(passes)

    return jax.vmap(one)(batch)

  return value_and_grads


class _Leaf(NamedTuple):
  """A shared leaf's part in the products, for some samples.

  Either ``rows`` ``(S, T, *p.shape)``, or what goes into its layer and the
  signals behind it, ``(S, n, ...)`` and ``(S, T, n, out)``.
  """

  rows: jax.Array | None = None
  inputs: jax.Array | None = None
  outputs: jax.Array | None = None


def _products(
  layer: _kernels.Layer | None, one: _Leaf, other: _Leaf
) -> jax.Array:
  """Inner products ``(S, T, S', T')``."""
  if layer is None:
    s, t, c, u = *one.rows.shape[:2], *other.rows.shape[:2]
    flat = lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    return _tree.leaf_products(flat(one.rows), flat(other.rows)).reshape(
      s, t, c, u
    )
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  n = layer.num_positions
  kernel = layer.kernel(flat(one.inputs), flat(other.inputs))
  kernel = kernel.reshape(len(one.inputs), n, len(other.inputs), n)
  einsum = lambda spec, *x: jnp.einsum(
    spec,
    *x,
    precision='highest',
    preferred_element_type=_tree.accumulator(one.outputs.dtype),
  )
  if n == 1:
    out = einsum('sto,cuo->stcu', one.outputs[:, :, 0], other.outputs[:, :, 0])
    return out * kernel.reshape(len(out), 1, -1, 1)
  times = einsum('sncm,cumo->sncuo', kernel, other.outputs)
  return einsum('stno,sncuo->stcu', one.outputs, times)


def value_and_sample_gramian(
  fun: LossFn,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  chunk_size: int | None = None,
  layerwise: bool = False,
  has_aux: bool = False,
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  r"""Losses of every sample and task, and inner products of their gradients.

  .. math:: G_{(s,t),(s',t')} =
     \nabla_{sh} L_t(x_s) \cdot \nabla_{sh} L_{t'}(x_{s'})

  on the shared parameters. For what a sample's gradient is, see
  `mtljax.value_and_sample_grads`. Call it inside ``jax.jit``.

  Args:
    fun: the losses, in any form of `mtljax.value_and_task_grads`.
    labels: see `mtljax.label_params`; None: all parameters are shared.
    gramian_labels: tree of bools, see `mtljax.match_params`: the shared leaves
      to take inner products over; None: all of them.
    chunk_size: C, how many samples' gradients make a block, a divisor of S:
      memory is 2 C T copies of the shared parameters, and the gradients are
      computed S / C + 1 times. None: S T copies, once.
    layerwise: takes inner products layer by layer without forming the gradients
      of the weights where that is less work (for dense layers it always is):
      T passes of signals, and no copy of such parameters. The same numbers up
      to rounding; not for a sequence of losses.
    has_aux: whether the functions return ``(loss, aux)``; ``aux`` is dropped.

  Returns:
    A function ``(params, batch, *args, **kwargs) -> (losses, gramian)`` of
    shapes ``(S, T)`` and ``(S, T, S, T)``, the Gramian in float32 or wider.

  Raises:
    ValueError: ``chunk_size`` does not divide the samples, no leaf is shared,
      or the layers of the loss cannot be watched.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(w, x):
    ...   return jnp.stack([jnp.mean(x @ w), -2 * jnp.mean(x @ w)])
    >>> gramian_fn = mtl.value_and_sample_gramian(task_losses, layerwise=True)
    >>> losses, gramian = gramian_fn(jnp.ones((2, 1)), jnp.eye(2))
    >>> print(losses)
    [[ 1. -2.]
     [ 1. -2.]]
    >>> print(gramian[0, :, 0])
    [[ 1. -2.]
     [-2.  4.]]
  """
  if chunk_size is not None:
    chunk_size = _validate.integer('chunk_size', chunk_size, 1)
  if layerwise:
    _pullback.check_one_pass(fun, 'the layer-wise Gramian')
  passes = make_passes('auto')

  def value_and_gramian(params, batch, *args, **kwargs):
    bound = _pullback.bind(fun, kwargs)
    pull = _pull_fn(bound, params, args, labels, has_aux, layerwise)
    return sample_gramian(
      pull, batch, gramian_labels, chunk_size, layerwise, passes
    )

  return value_and_gramian


def sample_gramian(
  pull: Callable[[Any], _pullback.Pullback],
  batch: Any,
  gramian_labels: Any,
  chunk_size: int | None,
  layerwise: bool,
  passes: Passes,
) -> tuple[jax.Array, jax.Array]:
  """Losses ``(S, T)`` and products ``(S, T, S, T)``, ``pull`` a sample's pass.

  Raises:
    ValueError: ``chunk_size`` does not divide the samples, or no leaf is shared
      and marked.
  """
  num_samples = _num_samples(batch)
  chunk = num_samples if chunk_size is None else chunk_size
  if num_samples % chunk:
    raise ValueError(
      f'chunk_size={chunk_size} must divide the {num_samples} samples.'
    )
  layers: list[_kernels.Layer | None] = []

  def one_sample(sample):
    pullback = pull(sample)
    marked = _gramian.marked_leaves(pullback, gramian_labels)
    which = [i for i, use in enumerate(marked) if use]
    if not layerwise:
      rows = pullback.rows(passes)
      layers[:] = [None] * len(which)
      return pullback.losses, [_Leaf(rows=rows[i]) for i in which]
    watched = layers_of(pullback, passes, num_samples)
    layers[:] = [watched.layers[i] for i in which]
    leaves = []
    for i in which:
      layer = watched.layers[i]
      if layer is None:
        leaves.append(_Leaf(rows=watched.rows[i]))
        continue
      inputs, signals = watched.side(i)
      outputs = jax.vmap(layer.outputs, (0, None))(signals, inputs)
      leaves.append(_Leaf(inputs=layer.inputs(inputs), outputs=outputs))
    return pullback.losses, leaves

  def block(own, other):
    if not own:
      raise ValueError('a Gramian needs at least one shared parameter.')
    return sum(map(_products, layers, own, other))

  if chunk == num_samples:
    losses, leaves = jax.vmap(one_sample)(batch)
    return losses, block(leaves, leaves)
  chunks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), batch)

  def block_row(samples):
    losses, own = jax.vmap(one_sample)(samples)
    others = lambda samples: block(own, jax.vmap(one_sample)(samples)[1])
    return losses, jax.lax.map(others, chunks)

  losses, blocks = jax.lax.map(block_row, chunks)
  # (chunk, its other, sample, task, sample, task)
  num_tasks = losses.shape[-1]
  gramian = jnp.moveaxis(blocks, 1, 3).reshape(
    num_samples, num_tasks, num_samples, num_tasks
  )
  return losses.reshape(num_samples, num_tasks), gramian


def layers_of(
  pullback: _pullback.Pullback, passes: Passes, num_samples: int
) -> _layerwise.Layers:
  """The layers of a sample's pass whose products pay for so many samples."""
  assert pullback.layers is not None
  num_tasks = pullback.losses.shape[0]
  return pullback.layers(
    passes,
    pays=lambda _, x: _kernels.is_cheaper(x, num_tasks, num_samples),
  )


def pass_of_one(
  fun: Callable[..., jax.Array], params: Any, watch: bool = False
) -> Callable[[Any], _pullback.Pullback]:
  """From a sample to the pass of ``fun(params, batch) -> (1,)`` on it."""
  return _pull_fn(fun, params, (), None, False, watch)


def of_samples(
  fun: Callable[..., jax.Array],
  params: Any,
  batch: Any,
  layerwise: bool,
  passes: Passes,
) -> _pullback.Pullback:
  """A pass in which every sample is a task.

  Args:
    fun: ``fun(params, batch) -> (1,)``, the loss of a batch of one.
    params: all shared.
    batch: the samples.
    layerwise: whether the Gramian is taken layer by layer.
    passes: how a sample's backward pass runs.
  """
  made = _pullback.make_pullback(
    lambda params, batch: losses_of_samples(fun, params, batch),
    params,
    (batch,),
    labels=None,
    has_aux=False,
  )
  pull = pass_of_one(fun, params, watch=layerwise)
  plain = pass_of_one(fun, params)

  def rows(passes, tasks=None):
    found = jax.vmap(lambda sample: plain(sample).rows(passes))(batch)
    return _pullback.take([x[:, 0] for x in found], tasks)

  def gramian(gramian_labels, chunk_size):
    _, found = sample_gramian(
      pull, batch, gramian_labels, chunk_size, layerwise, passes
    )
    return found[:, 0, :, 0]

  return dataclasses.replace(made, rows=rows, gramian=gramian)


def losses_of_samples(
  fun: Callable[..., jax.Array], params: Any, batch: Any
) -> jax.Array:
  """``(S,)`` of ``fun(params, batch) -> (1,)`` on batches of one."""
  _num_samples(batch)
  return jax.vmap(lambda sample: fun(params, _of_one(sample))[0])(batch)


def _num_samples(batch: Any) -> int:
  found = {x.shape[0] for x in jax.tree.leaves(batch)}
  if not _proven.is_static(found):
    raise ValueError(
      f'batch: the number of samples must be known, as the Gramian has a row '
      f'for each; got {found}. Export it for one size.'
    )
  sizes: Sequence[int] = sorted(found)
  if len(sizes) != 1:
    raise ValueError(
      f'batch: its arrays have {sizes} samples on axis 0; all must have the '
      'same.'
    )
  return sizes[0]
