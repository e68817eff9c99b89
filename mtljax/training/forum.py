r"""FORUM: task weights and parameters moved together, by first derivatives.

The validation losses are to fall while the training losses, weighted, are at
their minimum: two levels, as in `mtljax.moml`. FORUM takes the lower level as
a constraint on how far the parameters are from its minimum, and moves weights
and parameters in one step that lowers both.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax.gradients._passes import Mode, make_passes
from mtljax.gradients._pullback import LossFn
from mtljax.training.step import _begin, _optimizer
from mtljax.training.step._forum import ForumState, Plan, run_step
from mtljax.training.step.train_step import TrainStep
from mtljax.weightings import _common, _loss_common

__all__ = ['ForumState', 'make_forum_step']


def make_forum_step(
  optimizer: optax.GradientTransformation,
  loss_fn: LossFn,
  *,
  num_tasks: int | None = None,
  primary: Sequence[int] | None = None,
  learning_rate: ArrayLike = 1e-3,
  inner_learning_rate: ArrayLike = 0.1,
  inner_steps: int = 5,
  strictness: ArrayLike = 0.1,
  window: int = 1,
  mode: Mode = 'auto',
  batch_size: int | None = None,
) -> TrainStep:
  r"""Builds a step of FORUM, which learns task weights on validation data.

  With weights :math:`w = \mathrm{softmax}(\alpha)` of the training losses and
  :math:`f(\alpha, \theta) = \sum_t w_t L_t(\theta)`, the validation losses of
  the primary tasks P are descended in :math:`z = (\alpha, \theta)` under a
  constraint: f is no larger than its minimum over the parameters, of which
  J steps of gradient descent from :math:`\theta` give a value,

  .. math:: q(z) = f(\alpha, \theta) - f(\alpha, \theta^J) \le 0, \qquad
     \theta^{j+1} = \theta^j - \eta \nabla_\theta f(\alpha, \theta^j)

  :math:`\theta^J` is a constant in the gradient of q, so no second derivative
  is taken. A step is along the solution of

  .. math:: \min_d \max_{p \in P} u_p^\top d + \tfrac12 \|d\|^2
     \quad \text{s.t.} \quad \nabla q^\top d \le -\rho \|\nabla q\|^2,
     \qquad u_p = \frac{\nabla_z L^{\mathrm{val}}_p}
     {\|\nabla_z L^{\mathrm{val}}_p\|}

  which is :math:`-\sum_p \lambda_p u_p - \nu \nabla q` with :math:`\lambda` on
  the simplex. The shares are averaged over steps k, and the multiplier is the
  one with which the average meets the constraint:

  .. math:: \bar\lambda \leftarrow \bar\lambda
     + k^{-3/4} (\lambda - \bar\lambda), \qquad
     \nu = \max\left(0, \rho - \sum_p \bar\lambda_p
     \frac{u_p^\top \nabla q}{\|\nabla q\|^2}\right)

  Validation losses do not depend on :math:`\alpha`, so it moves by
  :math:`\nu \nabla_\alpha q` alone, with Adam; the parameters get
  :math:`\sum_p \bar\lambda_p u_p + \nu \nabla_\theta f` by the optimizer. As it
  is no weighted sum of one batch's gradients, FORUM is a step of its own and no
  method for `mtljax.training.make_train_step`.

  The problem is that of the paper's idea, the rest of the authors' code, which
  divides the gradients by their lengths. That code averages by epochs, which is
  ``window`` set to the steps of one, and it takes half of the constraint's term
  in the dual problem; here :math:`\lambda` solves the dual of the one above.

  Costs a forward and backward pass of the training batch for each of
  ``inner_steps``, a forward pass after them, T backward passes of the
  validation batch, and T gradients in memory; beside these a quadratic program
  of T + 1 variables.

  The state is a `mtljax.training.TrainState` whose ``method_state`` is a
  `ForumState`. The metrics, of the state before the step: ``losses`` and
  ``val_losses`` ``(T,)``, ``weights`` ``w``, ``shares``
  :math:`\bar\lambda`, ``multiplier`` :math:`\nu` and ``constraint`` q.

  ================================  ==========================================
  case                              result
  ================================  ==========================================
  :math:`\nabla q = 0`              :math:`\nu = 0`: a step of MGDA on the unit
                                    gradients; the weights go on by what Adam
                                    has of the steps before
  ``strictness=0``                  the step does not raise q to first order
  a validation gradient of zero     its task does not count
  all of them zero                  q alone is descended, once the shares of
                                    the steps before have faded
  an inner step that diverges,      NaN in the parameters of that step; what
  NaN or infinity                   the method has learned stands still
  ================================  ==========================================

  Args:
    optimizer: plain optax, of the parameters; it gets ``value``, the sum of the
      training losses, if it takes that.
    loss_fn: the task losses, called with ``(params, batch)``, in one of the
      forms of `mtljax.value_and_task_grads`. All parameters count in the
      gradients, those of heads too.
    num_tasks: for a plain ``loss_fn``; else known.
    primary: P, indices of tasks, from 0; None: all.
    learning_rate: of :math:`\alpha`'s Adam, at least 0.
    inner_learning_rate: :math:`\eta`, at least 0.
    inner_steps: J, at least 1.
    strictness: :math:`\rho`, at least 0.
    window: how many steps k stays the same for.
    mode: how the T backward passes run, see `mtljax.value_and_task_grads`.
    batch_size: how many of them go together, see there.

  Returns:
    A `mtljax.training.TrainStep`: ``init(params, *, key)``, and
    ``step(state, batch, val_batch=val_batch)``, jitted, which donates the
    state. ``route`` is ``'jacobian'``.

  Raises:
    TypeError: the optimizer is none, or ``primary`` is no list.
    ValueError: an argument is out of range, or the number of tasks is not
      known; from ``init``, there is a model state; from ``step``, there is no
      validation batch, or a batch is a `mtljax.MaskedBatch`.

  Examples:
    >>> import jax, jax.numpy as jnp, optax
    >>> from mtljax.training import forum
    >>> def task_losses(w, x):
    ...   return jnp.stack([(w - x) ** 2, (w + x) ** 2])
    >>> init, step, _ = forum.make_forum_step(
    ...   optax.sgd(0.1), task_losses, num_tasks=2, primary=[0])
    >>> state = init(jnp.array(0.0), key=jax.random.key(0))
    >>> for _ in range(50):
    ...   state, metrics = step(state, 1.0, val_batch=1.0)
    >>> bool(state.params > 0.2), bool(metrics['weights'][0] > 0.5)
    (True, True)

  References:
    Ye et al., `A First-Order Multi-Gradient Algorithm for Multi-Objective
    Bi-Level Optimization <https://arxiv.org/abs/2401.09257>`_, 2024
  """
  _validate.in_range('learning_rate', learning_rate, 0)
  _validate.in_range('inner_learning_rate', inner_learning_rate, 0)
  _validate.in_range('strictness', strictness, 0)
  num_tasks = _begin.num_tasks_of(loss_fn, num_tasks)
  plan = Plan(
    loss_fn=loss_fn,
    optimizer=_optimizer.checked(optimizer),
    passes=make_passes(mode, batch_size),
    num_tasks=num_tasks,
    primary=_validate.tasks('primary', primary, num_tasks),
    learning_rate=learning_rate,
    inner_learning_rate=inner_learning_rate,
    inner_steps=_validate.integer('inner_steps', inner_steps, 1),
    strictness=strictness,
    window=_validate.integer('window', window, 1),
  )

  def init(params, *, key, model_state=None):
    _begin.check_no_model_state(
      model_state, 'this step takes losses without a state'
    )
    start = jnp.zeros((num_tasks,), float)
    method_state = ForumState(
      learned=start,
      optimizer_state=_loss_common.adam_init(start),
      shares=jnp.zeros_like(start),
      residual=_common.zero_residual(),
    )
    init_optimizer = functools.partial(_optimizer.init, plan.optimizer)
    return _begin.first_state(init_optimizer, params, method_state, key)

  def step(state, batch, val_batch=None):
    _begin.check_state(state)
    if val_batch is None:
      raise ValueError(
        'val_batch=None: FORUM descends the losses of a validation batch; call '
        'step(state, batch, val_batch=val_batch).'
      )
    why = 'FORUM needs all tasks in every step'
    _begin.check_no_mask('batch', batch, why)
    _begin.check_no_mask('val_batch', val_batch, why)
    return run_step(plan, state, batch, val_batch)

  return TrainStep(init, jax.jit(step, donate_argnums=0), 'jacobian')
