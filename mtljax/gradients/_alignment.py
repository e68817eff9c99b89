"""How the agreement of gradients at the features answers to the heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import _labels, _tree
from mtljax.gradients import _outputs, _pullback
from mtljax.gradients._staged import Features, Staged


def _inner(a: list[jax.Array], b: list[jax.Array]) -> jax.Array:
  """The inner product over the reals, in float32 or wider."""
  total = jnp.zeros(())
  for x, y in zip(a, b, strict=True):
    x, y = (_tree.as_real(leaf) for leaf in (x, y))
    acc = _tree.accumulator(jnp.promote_types(x.dtype, y.dtype))
    total = total + jnp.sum(x.astype(acc) * y.astype(acc))
  return total


def alignment_fn(
  fun: Staged,
  params: Any,
  *args: Any,
  labels: _labels.Labels | None = None,
  has_aux: bool = False,
) -> Callable[[jax.Array], Any]:
  r"""How each head answers to the agreement of its gradient at the features.

  .. math:: a_t(w) = \nabla_{\psi_t} \left\langle
     \frac{\partial L_t}{\partial z},
     \sum_s w_s \frac{\partial L_s}{\partial z} \right\rangle

  by the parameters :math:`\psi_t` that task t owns, with the sum held fixed:
  the second derivatives that `mtljax.cons_mtl` reads, for its ``update(...,
  alignment_fn=)``; `mtljax.training.make_train_step` takes them itself. Costs a
  forward pass of the trunk, and of each head a backward pass and one through
  that; no trunk is pulled back.

  Args:
    fun: the losses; heads must be differentiable twice, in reverse mode.
    params: the parameters.
    *args: the arguments of the losses after the parameters.
    labels: which task owns which parameter, see `mtljax.label_params`.
    has_aux: whether the functions return ``(loss, aux)``; ``aux`` is dropped.

  Returns:
    ``fn(weights) -> tree`` in the parameters' shapes: :math:`a_t` at what task
    t owns, its own row of a stacked leaf, zeros at shared parameters and for a
    task of weight 0, which is left out of the sum too, whatever its head gives.

  Raises:
    ValueError: ``fun`` is not staged, or the labels do not fit.

  Examples:
    >>> import jax.numpy as jnp, mtljax as mtl
    >>> loss = mtl.Staged(
    ...   trunk=lambda params, x: x,
    ...   heads=[lambda params, z, x: params['head'] * z,
    ...          lambda params, z, x: z**2],
    ... )
    >>> params = {'head': jnp.array(3.0)}
    >>> fn = mtl.alignment_fn(
    ...   loss, params, jnp.array(1.0), labels={'head': 0})
    >>> print(fn(jnp.array([1.0, 0.5]))['head'])
    4.0

  References:
    The code of ConsMTL, in `MTLlib <https://github.com/jianke0604/MTLlib>`_,
    2025
  """
  _pullback.check_staged(fun, 'alignment is that of gradients at the features')
  split = _pullback.make_split(fun, params, labels)
  leaves = jax.tree.leaves(params)
  parts = Features()
  out = fun.trunk(params, *args)
  features, rest = parts.split(_outputs.with_aux(out, has_aux)[0])

  def slopes(t: int, own: dict[int, jax.Array]) -> list[jax.Array]:
    """The gradient of task t at the features, for parameters of its own."""
    mine = [own.get(i, leaf) for i, leaf in enumerate(leaves)]
    whole = jax.tree.unflatten(split.treedef, mine)

    def loss(features):
      out = fun.heads[t](whole, parts.merge(features, rest), *args)
      return _outputs.scalar(_outputs.with_aux(out, has_aux)[0], t)

    return jax.grad(loss)(features)

  def owned(t: int) -> dict[int, jax.Array]:
    return {
      i: leaf
      for i, (leaf, label) in enumerate(zip(leaves, split.labels, strict=True))
      if label == t or label == _labels.STACKED
    }

  def pulls_fn(weights):
    weights = jnp.asarray(weights)
    here = weights != 0
    each = [slopes(t, {}) for t in range(len(fun.heads))]
    parts.check(each[0])
    together = [
      _tree.combine_leaf(weights, _tree.present(here, jnp.stack(of_tasks)))
      for of_tasks in zip(*each, strict=True)
    ]
    found = [jnp.zeros_like(leaf) for leaf in leaves]
    for t in range(len(fun.heads)):
      pulls = jax.grad(lambda own, t=t: _inner(slopes(t, own), together))(
        owned(t)
      )
      for i, pull in pulls.items():
        pull = _tree.present(here[t], pull)
        if split.labels[i] == _labels.STACKED:
          found[i] = found[i].at[t].set(pull[t])
        else:
          found[i] = pull
    return jax.tree.unflatten(split.treedef, found)

  return pulls_fn
