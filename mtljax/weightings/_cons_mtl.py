"""ConsMTL: FairGrad's weights, and heads whose gradients agree."""

from __future__ import annotations

import dataclasses

from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import Alignment, Weighting
from mtljax.weightings import _fairgrad


def cons_mtl(
  *, strength: ArrayLike = 1.0, max_ratio: ArrayLike | None = 0.1
) -> Weighting:
  r"""ConsMTL: heads moved so that their gradients at the features agree.

  The shared parameters get `fairgrad`'s update with :math:`\alpha = 2`. The
  parameters :math:`\psi_t` of each head descend, beside their loss, the
  negative inner product of its gradient at the features z with the weighted sum
  of all tasks':

  .. math:: d_{\psi_t} = \nabla_{\psi_t} L_t
     - \lambda \min\left(1, \frac{c \|\nabla_{\psi_t} L_t\|}
     {\lambda \|a_t\|}\right) a_t, \qquad
     a_t = \nabla_{\psi_t} \left\langle \frac{\partial L_t}{\partial z},
     \sum_s w_s \frac{\partial L_s}{\partial z} \right\rangle

  with the sum held fixed and :math:`(G w)_t = w_t^{-1/2}`. The weights have no
  fixed sum. Heads' losses are not weighted. As the authors' code has it, which
  also multiplies the shared update by T and then clips its norm to 1
  (``scale=num_tasks, max_norm=1.0``), and adds up tasks' gradients at features
  of their own, where a network has such; here only features that two heads read
  make them agree.

  Scaling a task's loss changes the update's direction (invariance ``'none'``).
  Costs `fairgrad` and, in `mtljax.training.make_train_step`, of a
  `mtljax.Staged` loss, two passes back through each head and one forward
  through the trunk. On the optax face ``alignment_fn=`` is an argument of
  ``update``, see `mtljax.alignment_fn`.

  ========================  ==================================================
  input                     result
  ========================  ==================================================
  no parameters of a task   `fairgrad`
  zero rows                 weight 0, the smaller problem's answer for the rest;
                            such a head learns by its loss alone
  :math:`a_t = 0`           the head learns by its loss alone
  0 in the hull             as `fairgrad`: no solution, finite weights
  absent tasks              0, the smaller problem's answer for the rest
  NaN or infinity           NaN
  ========================  ==================================================

  Args:
    strength: :math:`\lambda`, at least 0; the authors': 1 (NYUv2), 50
      (Cityscapes, CelebA), 1e-3 (QM9).
    max_ratio: c, at least 0; the authors' code has 0.1, and 0.05 for
      Cityscapes. None: not bounded.

  Returns:
    The `mtljax.Weighting`. Reads the Gramian; the heads' part is what an
    aggregator or a train step makes of it.

  Raises:
    ValueError: an argument is out of range.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> weighting = mtl.weightings.cons_mtl()
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([1.0, 64.0])))
    >>> weights, _ = weighting.update(stats, weighting.init(2))
    >>> [round(float(w), 4) for w in weights]
    [1.0, 0.0625]

  References:
    ConsMTL (CVPR 2025), as in the authors' `MTLlib
    <https://github.com/jianke0604/MTLlib>`_
  """
  _validate.in_range('strength', strength, 0)
  _validate.in_range('max_ratio', max_ratio, 0, optional=True)
  inner = _fairgrad.fairgrad(alpha=2.0)
  info = dataclasses.replace(
    inner.info,
    name='cons_mtl',
    paper='Qin et al., 2025, https://github.com/jianke0604/MTLlib',
  )
  return inner._replace(
    info=info, alignment=Alignment(strength, max_ratio=max_ratio)
  )
