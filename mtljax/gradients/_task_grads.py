"""Per-task gradients and Gramians as function transformations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from mtljax import _labels, _validate
from mtljax.gradients import _gramian, _outputs, _pullback
from mtljax.gradients._passes import Mode, make_passes
from mtljax.gradients._pullback import LossFn, Pullback
from mtljax.gradients._staged import Staged


def _place(fun: LossFn, argnums: int) -> LossFn:
  """The loss with its parameters as the first argument."""
  if argnums == 0:
    return fun
  if argnums < 0:
    raise ValueError(f'argnums={argnums} must count from the front, from 0 on.')
  if isinstance(fun, Staged) or not callable(fun):
    raise ValueError(
      f'argnums={argnums}: staged losses and sequences take the parameters '
      'first; only a plain function may take them elsewhere.'
    )

  def placed(params, *rest):
    return fun(*rest[:argnums], params, *rest[argnums:])

  return placed


def _pullback_fn(
  fun: LossFn, labels: Any, argnums: int, has_aux: bool, watch: bool = False
) -> Callable[..., Pullback]:
  placed = _place(fun, argnums)

  def pullback_fn(*args, **kwargs):
    if len(args) <= argnums:
      raise TypeError(
        f'argnums={argnums}: the parameters must be positional argument number '
        f'{argnums}; got {len(args)} of them.'
      )
    rest = args[:argnums] + args[argnums + 1 :]
    return _pullback.make_pullback(
      _pullback.bind(placed, kwargs),
      args[argnums],
      rest,
      labels=labels,
      has_aux=has_aux,
      watch=watch,
    )

  return pullback_fn


def value_and_task_grads(
  fun: LossFn,
  *,
  labels: _labels.Labels | None = None,
  argnums: int = 0,
  has_aux: bool = False,
  mode: Mode = 'auto',
  batch_size: int | None = None,
) -> Callable[..., tuple[Any, Any]]:
  r"""Task losses and the gradient of each: `jax.value_and_grad` for T losses.

  ``fun`` has one of three forms:

  * plain: ``fun(params, *args) -> losses`` of shape ``(T,)``;
  * `mtljax.Staged`: trunk and heads apart, the cheapest form;
  * a sequence of ``fun_t(params, batch_t, *rest) -> loss``, for tasks whose
    data differ; called as ``(params, batches, *rest)`` with a batch a task.

  Args:
    fun: the losses, in one of the forms above.
    labels: which task owns which parameter, see `mtljax.label_params`; None:
      all parameters are shared.
    argnums: position of the parameters, for the plain form.
    has_aux: whether the functions return ``(loss, aux)``. The auxiliary
      output is ``(trunk's, (head 0's, ...))`` for the staged form and a tuple
      for a sequence.
    mode: how the T backward passes through shared parameters run:
      ``'unroll'`` one after the other in the program, ``'vmap'`` together,
      ``'map'`` in a loop (where XLA's CPU convolutions are slow); ``'auto'``:
      ``'vmap'`` on accelerators, and on CPU eight together where they share
      much, else ``'unroll'``. Which is fastest depends on the model: measure.
    batch_size: how many tasks go together in ``'unroll'`` or ``'map'``, between
      one by one and ``'vmap'`` in memory; None: one (and all in ``'vmap'``).

  Returns:
    A function with the arguments of ``fun`` that returns ``(losses, grads)``,
    or ``((losses, aux), grads)``. ``losses`` has shape ``(T,)``; ``grads`` is
    a tree like the parameters whose shared leaves have shape ``(T, *p.shape)``
    and whose other leaves, of a task or stacked, have shape ``p.shape``.
    Keyword arguments go to ``fun`` as they are, to all functions of a staged
    loss or a sequence.

    A leaf that a task owns is read by the loss of that task alone. Where the
    traced backward pass cannot tell (losses made in a loop, say), its gradient
    is the sum over all tasks, and every method weighs it as the owner's.

    In the plain form, all tasks share a backward pass, in which the NaN of one
    loss may reach the gradients of all (``0 * NaN`` is NaN), of tasks that are
    then masked too. The staged form and a sequence keep the tasks apart.

  Raises:
    ValueError: the mode is unknown or ``batch_size`` does not go with it; or,
      when called, a loss has the wrong shape, the labels do not fit, or the
      loss of another task depends on a leaf that a task owns.
    TypeError: when called, a loss is not real and floating, or a parameter is
      not an array of floats.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(params, x):
    ...   w = params['w']
    ...   return jnp.stack([jnp.sum(w * x), jnp.sum(w ** 2)])
    >>> grad_fn = mtl.value_and_task_grads(task_losses)
    >>> params = {'w': jnp.array([1.0, 2.0])}
    >>> losses, grads = grad_fn(params, jnp.array([3.0, 4.0]))
    >>> print(losses)
    [11.  5.]
    >>> print(grads['w'])
    [[3. 4.]
     [2. 4.]]
  """
  passes = make_passes(mode, batch_size)
  pullback_fn = _pullback_fn(fun, labels, argnums, has_aux)

  def value_and_grads(*args, **kwargs):
    pullback = pullback_fn(*args, **kwargs)
    grads = pullback.task_grads(passes)
    if has_aux:
      return (pullback.losses, pullback.aux), grads
    return pullback.losses, grads

  return value_and_grads


def value_and_gramian(
  fun: LossFn,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  argnums: int = 0,
  has_aux: bool = False,
  mode: Mode = 'auto',
  batch_size: int | None = None,
  chunk_size: int | None = None,
  layerwise: bool = False,
) -> Callable[..., tuple[Any, jax.Array]]:
  """Task losses and the Gramian of their gradients on shared parameters.

  Args:
    fun: as for `mtljax.value_and_task_grads`.
    labels: as there.
    gramian_labels: tree of bools, see `mtljax.match_params`: the shared leaves
      to take the Gramian over; None: all of them.
    argnums: as there.
    has_aux: as there.
    mode: as there.
    batch_size: as there.
    chunk_size: takes the Gramian in blocks of so many tasks by so many, and
      holds the gradients of two blocks at a time; the T backward passes become
      about ``T (T / chunk_size - 1)``. None: in one.
    layerwise: takes inner products layer by layer without forming the gradients
      of the weights where that is less work, the same numbers up to rounding;
      see ``docs/routes.md``. Not for a sequence of losses.

  Returns:
    A function with the arguments of ``fun`` that returns ``(losses, gramian)``
    or ``((losses, aux), gramian)``; ``gramian`` has shape ``(T, T)``, float32
    or wider.

  Raises:
    ValueError: as there.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> def task_losses(w):
    ...   return jnp.stack([w[0], w[0] + w[1]])
    >>> losses, gramian = mtl.value_and_gramian(task_losses)(jnp.ones(2))
    >>> print(gramian)
    [[1. 1.]
     [1. 2.]]
  """
  passes = make_passes(mode, batch_size)
  if chunk_size is not None:
    chunk_size = _validate.integer('chunk_size', chunk_size, 1)
    _pullback.check_one_pass(fun, f'chunk_size={chunk_size}')
  if layerwise:
    _pullback.check_one_pass(fun, 'the layer-wise Gramian')
  pullback_fn = _pullback_fn(fun, labels, argnums, has_aux, layerwise)

  def value_and_gramian_fn(*args, **kwargs):
    pullback = pullback_fn(*args, **kwargs)
    marked = _gramian.marked_leaves(pullback, gramian_labels)
    gramian, _ = _gramian.gramian_and_combine(
      pullback, passes, marked, chunk_size
    )
    if has_aux:
      return (pullback.losses, pullback.aux), gramian
    return pullback.losses, gramian

  return value_and_gramian_fn


def value_and_feature_norms(
  fun: Staged,
  *,
  chunks: int = 4,
  has_aux: bool = False,
) -> Callable[..., tuple[Any, jax.Array]]:
  r"""Task losses, and how long their gradients at the features are.

  .. math:: s_{tc} = \sum_{b \in c} \|\partial L_t / \partial z_b\|^2

  over the samples b of chunk c of the batch. What `mtljax.ntkmtl_sr` reads;
  `mtljax.training.make_train_step` takes it itself. Where :math:`L_t` is a mean
  over n chunks of losses that each depend on the features of their own chunk,
  these have gradients :math:`J_t` at all features with disjoint supports, so
  that :math:`J_t J_t^\top = n^2 \operatorname{diag}(s_t)` is the task's kernel.
  No trunk is pulled back: it costs a forward pass and one of each head back.

  Args:
    fun: the losses; the batch is axis 0 of every array among the features.
    chunks: n, which must divide the batch; the samples of a chunk follow each
      other.
    has_aux: whether the functions return ``(loss, aux)``, as for
      `mtljax.value_and_task_grads`.

  Returns:
    A function with the arguments of the losses that returns ``(losses,
    norms)`` or ``((losses, aux), norms)``; ``norms`` has shape ``(T, n)``,
    float32 or wider.

  Raises:
    ValueError: ``fun`` is not staged or ``chunks`` is not above 0; or, when
      called, ``chunks`` does not divide the batch, or a head returns a
      `mtljax.HeadAux`: batch statistics behind the features tie the chunks
      together. Of such statistics that are not returned it cannot know.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> loss = mtl.Staged(
    ...   trunk=lambda w, x: w * x,
    ...   heads=[lambda w, z, x: jnp.mean(z), lambda w, z, x: jnp.mean(z**2)],
    ... )
    >>> fn = mtl.value_and_feature_norms(loss, chunks=2)
    >>> losses, norms = fn(2.0, jnp.array([0.0, 1.0]))
    >>> print(norms)
    [[0.25 0.25]
     [0.   4.  ]]

  References:
    Qin et al., `NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from
    Neural Tangent Kernel Perspective <https://arxiv.org/abs/2510.18258>`_, 2025
  """
  _pullback.check_staged(fun, 'feature norms are taken at the features')
  chunks = _validate.integer('chunks', chunks, 1)
  pullback_fn = _pullback_fn(fun, None, 0, has_aux)

  def value_and_norms(*args, **kwargs):
    pullback = pullback_fn(*args, **kwargs)
    norms = pullback.feature_norms(chunks)
    if has_aux:
      return (pullback.losses, pullback.aux), norms
    return pullback.losses, norms

  return value_and_norms


def task_grad_fn(
  fun: LossFn, *args: Any, has_aux: bool = False
) -> Callable[[Any, int], tuple[jax.Array, Any]]:
  """The gradient of one task at any parameters, for the sharpness methods.

  Args:
    fun: as for `mtljax.value_and_task_grads`. The staged form and the sequence
      evaluate only the head of the task asked for; the plain form evaluates
      all of them.
    *args: the arguments of ``fun`` after the parameters: the batch of this
      step, so that both phases see the same one.
    has_aux: whether the functions return ``(loss, aux)``; ``aux`` is dropped.

  Returns:
    ``(params, t) -> (loss_t, grads_t)`` for a Python int ``t``; ``grads_t`` has
    the parameters' structure and shapes, zeros where task t does not reach.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> grad_fn = mtl.task_grad_fn(lambda w: jnp.stack([w ** 2, 3 * w]))
    >>> loss, grad = grad_fn(jnp.array(2.0), 1)
    >>> print(loss, grad)
    6.0 3.0
  """

  def loss_fn(params, t):
    if isinstance(fun, Staged):
      features, _ = _outputs.with_aux(fun.trunk(params, *args), has_aux)
      out = fun.heads[t](params, features, *args)
    elif callable(fun):
      losses, _ = _outputs.with_aux(fun(params, *args), has_aux)
      if not 0 <= t < losses.shape[0]:
        raise ValueError(
          f'task {t} of {losses.shape[0]} losses does not exist.'
        )
      return losses[t]
    else:
      out = fun[t](params, args[0][t], *args[1:])
    return _outputs.with_aux(out, has_aux)[0]

  def grad_fn(params, t):
    return jax.value_and_grad(loss_fn)(params, t)

  return grad_fn
