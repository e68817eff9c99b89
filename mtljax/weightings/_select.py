"""One of several rules, chosen by a number that may be traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import _validate
from mtljax._types import Invariance, MethodInfo, Weighting

_INVARIANCES: tuple[Invariance, ...] = ('none', 'direction', 'full')


class SelectState(NamedTuple):
  """State of `select`."""

  residual: jax.Array | None  # () of the rule chosen; None if no rule has one
  inner_states: tuple[Any, ...]


def select(weightings: Sequence[Weighting], index: ArrayLike) -> Weighting:
  r"""One of several rules, by its number.

  .. math:: w = w^{(i)}

  with the weights :math:`w^{(j)}` of rule j and ``index`` :math:`i`. It makes
  methods an axis of a sweep (`mtljax.training.make_sweep`): runs that differ in
  the rule then share one program. Weights are T-sized, so that the rules that
  are not chosen cost little beside the gradients; those have to be what the
  most demanding of the rules reads.

  With one index, the rule chosen is the only one that runs. Under `jax.vmap`
  over ``index`` all of them run, and the weights and the state of the one
  chosen are kept.

  The weights sum to what those of the rule chosen sum to. Whether heads are
  weighted is said once for a `mtljax.Weighting`, so the rules have to agree in
  it; `mtljax.select` of aggregators follows each. Invariance is the weakest
  one among the rules.

  ========================  ==================================================
  input                     weights
  ========================  ==================================================
  absent tasks              0; the state of the rule chosen is as that rule
                            leaves it, and the others' do not change
  NaN or infinity           those of the rule chosen; in an aggregator, NaN if
                            anything is not finite that any of the rules reads
  an array out of range     the nearest index; Python numbers are checked
  ``every_k`` inside        saves no gradients: put it around, if one k does
                            for all
  ========================  ==================================================

  Args:
    weightings: the rules; either all or none of them read two batches.
    index: the number of the rule, a scalar.

  Returns:
    The `mtljax.Weighting`. Reads what any of the rules reads.

  Raises:
    TypeError: one of the rules is no `mtljax.Weighting`, or ``index`` is no
      integer.
    ValueError: there is no rule, ``index`` is out of range, or the rules differ
      in a way that one weighting cannot have.

  Examples:
    >>> import jax, jax.numpy as jnp, mtljax as mtl
    >>> rules = [mtl.weightings.mgda(), mtl.weightings.upgrad()]
    >>> stats = mtl.TaskStats(gramian=jnp.diag(jnp.array([4.0, 1.0])))
    >>> @jax.vmap
    ... def weights(index):
    ...   rule = mtl.weightings.select(rules, index)
    ...   return rule.update(stats, rule.init(2))[0]
    >>> print(weights(jnp.arange(2)).round(3))
    [[0.2 0.8]
     [0.5 0.5]]
  """
  rule = of_any_heads(weightings, index)
  heads = {w.info.name: w.info.weight_heads for w in weightings}
  if len(set(heads.values())) > 1:
    raise ValueError(
      f'weightings differ in whether heads are weighted ({heads}): select '
      'aggregators instead, mtl.select([mtl.mgda(num_tasks=2), ...], index), '
      'which follows each.'
    )
  return rule


def of_any_heads(
  weightings: Sequence[Weighting], index: ArrayLike
) -> Weighting:
  """`select`, for a caller that sees to the heads."""
  weightings = tuple(weightings)
  _check(weightings, index)

  def init_fn(num_tasks, key=None):
    states = tuple(
      w.init(num_tasks, key=None if key is None else jax.random.clone(key))
      for w in weightings
    )
    residuals = [_residual(state) for state in states]
    return SelectState(
      residual=None
      if all(r is None for r in residuals)
      else jnp.zeros((), float),
      inner_states=states,
    )

  def update_fn(stats, state):
    def run(i, states):
      weights, own = weightings[i].update(stats, states[i])
      residual = state.residual
      if residual is not None:
        found = _residual(own)
        zero = jnp.zeros_like(residual)
        residual = zero if found is None else found.astype(residual.dtype)
      states = (*states[:i], own, *states[i + 1 :])
      return weights.astype(float), SelectState(residual, states)

    return _switch(index, len(weightings), run, state.inner_states)

  def observe_fn(losses_after, state):
    def run(i, states):
      if weightings[i].observe is None:
        return states
      own = weightings[i].observe(losses_after, states[i])
      return (*states[:i], own, *states[i + 1 :])

    states = _switch(index, len(weightings), run, state.inner_states)
    return state._replace(inner_states=states)

  infos = [w.info for w in weightings]
  chunks = [w.chunks for w in weightings if w.chunks is not None]
  return Weighting(
    init_fn,
    update_fn,
    frozenset().union(*(w.needs for w in weightings)),
    observe=observe_fn if any(w.observe for w in weightings) else None,
    info=MethodInfo(
      name=f'select({", ".join(info.name for info in infos)})',
      paper='',
      invariance=min(
        (info.invariance for info in infos), key=_INVARIANCES.index
      ),
      weight_heads=all(info.weight_heads for info in infos),
      signed=any(info.signed for info in infos),
      random=any(info.random for info in infos),
    ),
    chunks=chunks[0] if chunks else None,
  )


def _switch(index: ArrayLike, size: int, run: Any, states: tuple[Any, ...]):
  branches = [lambda states, i=i: run(i, states) for i in range(size)]
  return jax.lax.switch(jnp.asarray(index, jnp.int32), branches, states)


def _residual(state: Any) -> jax.Array | None:
  """That of the rule, or of the rule inside it."""
  while state is not None:
    if hasattr(state, 'residual'):
      return state.residual
    state = getattr(state, 'inner_state', None)
  return None


def _check(weightings: tuple[Weighting, ...], index: ArrayLike) -> None:
  for weighting in weightings:
    if not isinstance(weighting, Weighting):
      raise TypeError(
        f'weightings: {type(weighting).__name__} is not a weighting such as '
        'mtl.weightings.cagrad().'
      )
  if not weightings:
    raise ValueError('weightings is empty; pass at least one.')
  check_index(index, len(weightings))
  for weighting in weightings:
    if weighting.lookahead is not None:
      raise ValueError(
        f'weightings: {weighting.info.name} reads a hypergradient of its own, '
        'which is taken once a step; use it without select.'
      )
    if weighting.alignment is not None:
      raise ValueError(
        f'weightings: {weighting.info.name} moves heads by more than weights; '
        'use it without select.'
      )
  chunks = {w.chunks for w in weightings if w.chunks is not None}
  if len(chunks) > 1:
    raise ValueError(
      f'weightings: they cut the batch into {sorted(chunks)} chunks; select '
      'among rules with the same number.'
    )
  crosses = {w.info.name: 'cross_gramian' in w.needs for w in weightings}
  if len(set(crosses.values())) > 1:
    raise ValueError(
      f'weightings: some compare two batches and some do not ({crosses}), so '
      'that their steps are of other parts of a batch; select among one kind.'
    )


def check_index(index: ArrayLike, size: int) -> None:
  """Raises TypeError or ValueError unless it is a scalar integer in range."""
  try:
    integral = jnp.issubdtype(jnp.result_type(index), jnp.integer)
    scalar = integral and jnp.shape(index) == ()
  except TypeError:  # text, say
    scalar = False
  if not scalar:
    raise TypeError(f'index={index!r} must be a scalar integer.')
  if not isinstance(index, jax.core.Tracer):
    _validate.in_range('index', int(index), 0, size - 1)
