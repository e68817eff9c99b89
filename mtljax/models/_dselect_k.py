"""DSelect-k: each task selects at most k of the shared experts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtljax import _validate
from mtljax.models import _base, _experts
from mtljax.models._multi_mlp import MLPHead

_EPSILON = 1e-6  # in the logarithm, as in the authors' code


def smooth_step(t: jax.Array, gamma: float = 1.0) -> jax.Array:
  r"""A step from 0 to 1 that is a cubic between, with a derivative everywhere.

  .. math:: S(t) = -\frac{2}{\gamma^3} t^3 + \frac{3}{2\gamma} t + \frac12

  for t within :math:`\pm\gamma/2`; 0 below, 1 above.

  Args:
    t: numbers, any shape.
    gamma: the width of the cubic part, above 0.

  Returns:
    Numbers in [0, 1], shape of ``t``.

  Raises:
    ValueError: ``gamma`` is not above 0.

  Example:
    >>> import jax.numpy as jnp
    >>> print(smooth_step(jnp.array([-0.5, 0.0, 0.25, 0.5])))
    [0.      0.5     0.84375 1.     ]

  References:
    Hazimeh et al., The Tree Ensemble Layer, 2020,
    https://arxiv.org/abs/2002.07772
  """
  _validate.in_range('gamma', gamma, 0, open_low=True)
  t = jnp.clip(t, -gamma / 2, gamma / 2)
  return -2 / gamma**3 * t**3 + 3 / (2 * gamma) * t + 0.5


def _uniform(bound):
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
    key, shape, dtype, -bound, bound
  )


class Selectors(nn.Module):
  """Selectors of single experts, and how they are mixed.

  Args:
    num_experts: E.
    num_selected: k, the number of selectors.
    per_example: whether they read the inputs.
    gamma: width of the smooth step.
  """

  num_experts: int
  num_selected: int
  per_example: bool
  gamma: float

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The selectors ``(k, E)`` and their shares ``(k,)``; per example, of all.

    What is of each example has the batch as its first axis.
    """
    k, bits = self.num_selected, num_bits(self.num_experts)
    init = {'z': _uniform(self.gamma / 100), 'w': _uniform(0.05)}
    shapes = {'z': (k, bits), 'w': (k,)}
    if self.per_example:
      made = {
        name: nn.Dense(
          math.prod(shape),
          kernel_init=init[name],
          bias_init=init[name],
          name=name,
        )(x).reshape(-1, *shape)
        for name, shape in shapes.items()
      }
    else:
      made = {name: self.param(name, init[name], shapes[name]) for name in init}
    steps = smooth_step(made['z'], self.gamma)
    # The expert's number in bits, the highest first.
    code = np.arange(self.num_experts)[:, None] >> np.arange(bits)[::-1] & 1
    on = np.broadcast_to(code > 0, (*steps.shape[:-1], *code.shape))
    steps = jnp.broadcast_to(steps[..., None, :], on.shape)
    return jnp.where(on, steps, 1 - steps).prod(-1), nn.softmax(made['w'])


class DSelectKHead(nn.Module):
  """Selectors of single experts, mixed, and a tower.

  Args:
    tower: from the mixture of experts to the outputs.
    num_experts: E.
    num_selected: k, the number of selectors.
    per_example: whether selectors read the inputs.
    gamma: width of the smooth step.
    entropy_weight: of the selectors' entropy in `penalty`.
    raw_inputs: as in `GatedHead`.
  """

  tower: nn.Module
  num_experts: int
  num_selected: int = 2
  per_example: bool = False
  gamma: float = 1.0
  entropy_weight: float = 1e-6
  raw_inputs: bool = True

  def setup(self):
    """The selectors."""
    self.gate = Selectors(
      self.num_experts, self.num_selected, self.per_example, self.gamma
    )

  def __call__(
    self, features: _experts.ExpertFeatures, *, train: bool = False
  ) -> jax.Array:
    """Maps `ExpertFeatures` to the outputs of the tower."""
    selectors, shares = self.selectors(features)
    weights = jnp.einsum('...k,...ke->...e', shares, selectors)
    form = 'be,be...->b...' if self.per_example else 'e,be...->b...'
    mixed = jnp.einsum(form, weights, features.experts)
    return self.tower(mixed, train=train)

  def selectors(
    self, features: _experts.ExpertFeatures
  ) -> tuple[jax.Array, jax.Array]:
    """The selectors and their shares, ``(k, E)`` and ``(k,)``.

    Per example ``(B, k, E)`` and ``(B, k)``.
    """
    x = features.inputs.reshape(len(features.inputs), -1)
    return self.gate(jax.lax.stop_gradient(x) if self.raw_inputs else x)

  def penalty(self, features: _experts.ExpertFeatures) -> jax.Array:
    """What the task's loss has to add so that selectors become selective."""
    selectors, _ = self.selectors(features)
    return selection_penalty(selectors, self.entropy_weight)


def num_bits(num_experts: int) -> int:
  """Bits that tell so many experts apart."""
  return (num_experts - 1).bit_length()


def selection_penalty(
  selectors: jax.Array, entropy_weight: float = 1e-6
) -> jax.Array:
  r"""The regularizer of DSelect-k, a scalar.

  .. math::
    \sum_k \Big(-\lambda \sum_e s_{ke} \log s_{ke} +
    [E \ne 2^m] \frac{1}{\sum_e s_{ke}}\Big)

  The entropy draws each selector to a single expert. Where the number of
  experts is no power of two, some of the codes are of no expert, and the second
  term keeps selectors away from those. Of selectors per example, the mean over
  examples (the authors' code has the sum).

  Args:
    selectors: ``(k, E)``, or ``(B, k, E)`` per example.
    entropy_weight: :math:`\lambda`.

  Returns:
    The scalar.

  Example:
    >>> import jax.numpy as jnp
    >>> even = jnp.full((1, 4), 0.25)
    >>> print(f'{selection_penalty(even, 1.0):.4f}')  # log 4
    1.3863

  References:
    Hazimeh et al., DSelect-k: Differentiable Selection in the Mixture of
    Experts with Applications to Multi-Task Learning, 2021,
    https://arxiv.org/abs/2106.03760
  """
  entropy = -(selectors * jnp.log(selectors + _EPSILON)).sum(-1)
  found = entropy_weight * entropy
  num_experts = selectors.shape[-1]
  if num_experts != 2 ** num_bits(num_experts):
    found += 1 / selectors.sum(-1)
  return found.sum(-1).mean()


def dselect_k(
  tasks: Sequence[str],
  num_classes: int | Sequence[int] = 10,
  num_experts: int = 8,
  num_selected: int = 2,
  expert_sizes: Sequence[int] = (64,),
  head_sizes: Sequence[int] = (),
  per_example: bool = False,
  gamma: float = 1.0,
  entropy_weight: float = 1e-6,
  dropout_rate: float = 0.0,
  encoder: nn.Module | None = None,
) -> _base.MultiTaskModel:
  r"""Builds DSelect-k: as `mmoe`, but a task's gate selects at most k experts.

  A selector is a soft code of one expert's number: with :math:`m = \lceil
  \log_2 E \rceil` numbers z and the `smooth_step` S,

  .. math:: s(e) = \prod_b S(z_b)^{e_b} (1 - S(z_b))^{1 - e_b}

  which names one expert once all :math:`|z_b| \ge \gamma / 2`. The gate is
  :math:`\sum_k \mathrm{softmax}(w)_k s_k(e)`.

  Shared: all experts (and the encoder). Of a task's own: z and w, its tower.

  A head's ``penalty(features)`` is `selection_penalty` of its selectors, and
  `staged_loss` adds it to the task's loss.

  Args:
    tasks: the names of the tasks.
    num_classes: outputs per task, or one number a task; 1 for a regression or
      a binary task with a single logit.
    num_experts: E, at least 2.
    num_selected: k.
    expert_sizes: units of the layers of each expert, at least one layer.
    head_sizes: units of the hidden layers of each tower.
    per_example: whether z and w are dense layers on the inputs, ``k (m + 1)
      (D + 1)`` parameters a task, or parameters themselves, ``k (m + 1)``.
    gamma: width of the smooth step.
    entropy_weight: of the penalty.
    dropout_rate: in [0, 1), after every hidden layer; 0 needs no key.
    encoder: as in `mmoe`.

  Returns:
    The model.

  Raises:
    ValueError: if a number is out of range, experts have no layer, or
      ``num_classes`` is not one a task.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = dselect_k(('income', 'married'), 1, expert_sizes=(4,))
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((3, 40)))
    >>> {k: p.shape for k, p in sorted(params['heads_0']['gate'].items())}
    {'w': (2,), 'z': (2, 3)}

  References:
    Hazimeh et al., DSelect-k: Differentiable Selection in the Mixture of
    Experts with Applications to Multi-Task Learning, 2021,
    https://arxiv.org/abs/2106.03760
  """
  tasks, num_outputs = _experts.check(
    tasks,
    num_classes,
    dropout_rate,
    expert_sizes,
    head_sizes,
  )
  gate = check_gate(
    num_experts, num_selected, per_example, gamma, entropy_weight
  )
  experts = _experts.Experts(num_experts, tuple(expert_sizes), dropout_rate)
  trunk = _experts.ExpertsTrunk(experts, encoder)
  heads = [
    DSelectKHead(
      MLPHead(n, tuple(head_sizes), dropout_rate),
      raw_inputs=encoder is None,
      **gate,
    )
    for n in num_outputs
  ]
  return _base.MultiTaskModel(trunk, tuple(heads), tasks)


def check_gate(
  num_experts: int,
  num_selected: int,
  per_example: bool,
  gamma: float,
  entropy_weight: float,
) -> dict[str, Any]:
  """What a `DSelectKHead` takes besides its tower, or a ValueError."""
  num_experts = _validate.integer('num_experts', num_experts, 2)
  num_selected = _validate.integer('num_selected', num_selected, 1)
  _validate.flag('per_example', per_example)
  _validate.in_range('gamma', gamma, 0, open_low=True)
  _validate.in_range('entropy_weight', entropy_weight, 0)
  return {
    'num_experts': num_experts,
    'num_selected': num_selected,
    'per_example': bool(per_example),
    'gamma': gamma,
    'entropy_weight': entropy_weight,
  }
