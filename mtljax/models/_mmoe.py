"""Multi-gate mixture-of-experts on dense inputs."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn

from mtljax import _validate
from mtljax.models import _base, _experts
from mtljax.models._multi_mlp import MLPHead


def mmoe(
  tasks: Sequence[str],
  num_classes: int | Sequence[int] = 10,
  num_experts: int = 8,
  expert_sizes: Sequence[int] = (64,),
  head_sizes: Sequence[int] = (),
  dropout_rate: float = 0.0,
  encoder: nn.Module | None = None,
) -> _base.MultiTaskModel:
  r"""Builds a multi-gate mixture-of-experts (MMoE).

  Shared experts :math:`f_e`, and for each task a gate on the inputs and a
  tower:

  .. math:: y_t = h_t\Big(\sum_e \mathrm{softmax}(W_t x + b_t)_e f_e(x)\Big)

  Shared: all experts (and the encoder). Of a task's own: its gate, its tower.

  Without hidden layers in towers and with one layer of H units an expert, E
  experts on D inputs have ``E (D + 1) H`` parameters, and the gates of T tasks
  ``T (D + 1) E``.

  Args:
    tasks: the names of the tasks.
    num_classes: outputs per task, or one number a task; 1 for a regression or
      a binary task with a single logit.
    num_experts: E.
    expert_sizes: units of the layers of each expert, at least one layer.
    head_sizes: units of the hidden layers of each tower.
    dropout_rate: in [0, 1), after every hidden layer; 0 needs no key.
    encoder: called as ``encoder(x, train=...)``, makes ``(B, D)`` of what the
      model takes, such as `EmbedColumns`; gates and experts both read it. None:
      examples are flattened.

  Returns:
    The model; its features are ``(inputs, experts)``, ``(B, D)`` and
    ``(B, E, H)``.

  Raises:
    ValueError: if a number is below 1, experts have no layer, or
      ``num_classes`` is not one a task.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> model = mmoe(('income', 'married'), num_classes=1, expert_sizes=(4,))
    >>> x = jnp.zeros((3, 40))
    >>> params, model_state = model.init(jax.random.key(0), x)
    >>> [logits.shape for logits in model.apply(params, model_state, x)]
    [(3, 1), (3, 1)]
    >>> sorted(params['heads_0']), params['trunk']['experts']['fc1'][
    ...   'kernel'
    ... ].shape
    (['gate', 'tower'], (8, 40, 4))

  References:
    Ma et al., Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts, 2018,
    https://doi.org/10.1145/3219819.3220007
  """
  tasks, num_outputs = _experts.check(
    tasks,
    num_classes,
    dropout_rate,
    expert_sizes,
    head_sizes,
  )
  num_experts = _validate.integer('num_experts', num_experts, 1)
  experts = _experts.Experts(num_experts, tuple(expert_sizes), dropout_rate)
  trunk = _experts.ExpertsTrunk(experts, encoder)
  heads = [
    _experts.GatedHead(
      MLPHead(n, tuple(head_sizes), dropout_rate), raw_inputs=encoder is None
    )
    for n in num_outputs
  ]
  return _base.MultiTaskModel(trunk, tuple(heads), tasks)
