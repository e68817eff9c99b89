"""Every method as ``mtl.contrib.<name>(num_tasks, ...)``.

Made by `python docs/make_stubs.py`; do not edit it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
from jax.typing import ArrayLike

from mtljax import _labels
from mtljax._types import Aggregator, Weighting


def emtl(
  num_tasks: int,
  *,
  form: Literal['hard', 'soft'] = 'hard',
  strength: ArrayLike = 1.0,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
  weight_heads: bool | None = None,
  scale: ArrayLike = 1.0,
  max_norm: ArrayLike | None = None,
  key: jax.Array | int = 0,
  nonfinite: Literal['propagate', 'drop_task'] = 'propagate',
) -> Aggregator:
  r"""EMTL, reconstructed from its abstract: equal relative contributions.

  The abstract of equitable multi-task learning defines the relative
  contribution of task t as the value of its loss over the norm of its gradient,
  :math:`r_t = L_t / \|g_t\|`, and regularises the variance of the contributions
  over the tasks. Its algorithm has not been published as code and is **not**
  what this is: the weights here follow that idea alone. In the hard form
  :math:`w_t g_t` is as long as the others in proportion to its loss, so
  :math:`L_t / \|w_t g_t\|` is equal for all tasks:

  .. math:: w_t = T\, \frac{r_t}{\sum_s r_s}

  which is also how MoCo's code scales gradients. The soft form weighs that
  against equal weights, in logarithms: up to a factor it is

  .. math:: \arg\min_w \sum_t (\log w_t)^2
     + \lambda T\, \mathrm{Var}_t (\log w_t - \log r_t)
     \quad\Rightarrow\quad
     w_t = T\, \frac{r_t^{\lambda / (1 + \lambda)}}
     {\sum_s r_s^{\lambda / (1 + \lambda)}}

  from equal weights at :math:`\lambda = 0` to the hard form. The weights sum
  to T. Heads are weighted: the method weights losses. In the hard form a
  factor on a loss leaves the weights as they are, so it acts as it would
  without weights (invariance ``'none'``). Costs the Gramian (T backward
  passes) and O(T) beside it.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  one task                  1
  zero rows                 0 for them, the smaller problem's answer for the
                            rest; their heads are not trained in that step
  all rows zero             zeros
  equal or opposed rows     nothing special: only their norms are read
  a loss of 0               0 (for a ``strength`` above 0)
  all losses 0              zeros
  a negative loss           NaN
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    num_tasks: T, a Python int.
    **options: the options of `mtljax.aggregate`, where they are explained:
      ``labels``, ``gramian_labels``, ``weight_heads``, ``scale``,
      ``max_norm``, ``key``, ``nonfinite``.
    form: ``'hard'`` or ``'soft'``.
    strength: :math:`\lambda` of the soft form, at least 0.

  Returns:
    The `mtljax.Aggregator`. Reads the losses and the Gramian; it has no state.

  Raises:
    ValueError: ``form`` is not known or ``strength`` is negative.

  References:
    Yuan and Zhang, `Equitable Multi-task Learning
    <https://arxiv.org/abs/2306.09373>`_, 2023 (the idea only)

  The optax face of `mtljax.contrib.weightings.emtl`: see `mtljax.aggregate`.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> tx = mtl.contrib.emtl(num_tasks=2)
    >>> grads = {'w': jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])}
    >>> update, state = tx.update(grads, tx.init(None), losses=jnp.ones(2))
    >>> update['w'].shape, mtl.get_weights(state).shape
    ((3,), (2,))
  """
