"""A trunk shared by all tasks, one head per task, and who owns what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax

from mtljax import _labels, _validate

Params = dict[str, Any]
ModelState = dict[str, Any]

TIED = 'tied'
#: What a network is built by where LibMTL's differs from its paper's.
DEFINITIONS = ('paper', 'libmtl')


def _shapes(x: Any) -> Any:
  """What JAX makes of arrays: int64 is int32 where float64 is off."""
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(
      a.shape, jax.dtypes.canonicalize_dtype(a.dtype)
    ),
    x,
  )


def _init(module: nn.Module, key: jax.Array, x: Any) -> dict[str, Any]:
  """Variables from the shape of x alone: no forward pass is computed."""
  return dict(module.lazy_init({'params': key}, _shapes(x), train=False))


def _apply(
  module: nn.Module, name: str, variables: Mapping[str, Any], x, **kwargs
) -> Any:
  try:
    return module.apply(variables, x, **kwargs)
  except flax.errors.InvalidRngError as e:
    raise ValueError(
      f'key=None, but {name} draws random numbers when train=True: pass a key.'
    ) from e
  except (
    flax.errors.ScopeCollectionNotFound,
    flax.errors.ScopeVariableNotFoundError,
  ) as e:
    if len(variables) > 1:
      raise
    raise ValueError(
      f'model_state=None, but {name} has state: pass the one from init.'
    ) from e


def _is_of_heads(name: str) -> bool:
  """Whether an entry of the model state belongs to heads."""
  return name == TIED or name.startswith('heads_')


@dataclasses.dataclass(frozen=True)
class Sharing:
  """A convention on which parameters are shared.

  Every Gramian and every conflict hangs on it, and codes differ in it for the
  same network. The trunk is shared by any of them, and what the heads have in
  common too, since several losses read it.

  Args:
    about: what it is, in a line.
    shared: regular expressions of parameters of heads that are labelled as
      shared besides. The gradients of the other tasks are zero there.
    gramian: expressions of the shared parameters that the Gramian is taken
      over; none: all of them.

  Example:
    >>> Sharing('trunk and attention', shared=('heads_./attention/.*',)).gramian
    ()
  """

  about: str = ''
  shared: tuple[str, ...] = ()
  gramian: tuple[str, ...] = ()


class Sharings(NamedTuple):
  """Parameters under a convention.

  Attributes:
    name: of the convention.
    about: what it is.
    labels: as of `mtljax.label_params`.
    gramian_labels: as of `mtljax.match_params`; None: all that are shared.
    num_shared: numbers in the parameters labelled as shared.
    num_gramian: in those that the Gramian is taken over.
    num_params: in all of them.
  """

  name: str
  about: str
  labels: Any
  gramian_labels: Any
  num_shared: int
  num_gramian: int
  num_params: int


@dataclasses.dataclass(frozen=True)
class MultiTaskModel:
  """A trunk that all tasks share and one head per task.

  The two halves are applied apart, which is what lets every head be evaluated
  and differentiated once: ``features = trunk(x)``, then
  ``logits_t = head_t(features)``.

  Parameters are ``{'trunk': ..., 'heads_0': ..., 'heads_1': ...}``. The model
  state holds what the trunk changes in a forward pass (``'batch_stats'``), or
  nothing; what a head changes is under ``'heads_<t>'``.

  Submodules named in ``tied`` are one for all heads: their parameters and state
  are under ``'tied'``, once.  In a step every head starts from the same state,
  and the next one is the mean of theirs.

  Args:
    trunk: module called as ``trunk(x, train=...)``. Its features may be any
      tree of arrays.
    heads: modules called as ``head(features, train=...)``, one per task.
    tasks: the names of the tasks, in the order of the heads.
    tied: names of submodules that every head has, with the same parameters.
    conventions: by name, which parameters are called shared; the first by
      default.

  Raises:
    ValueError: if there is no task, a name occurs twice, the numbers of heads
      and names differ, or there is no convention.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mtljax import models
    >>> model = models.multi_lenet(tasks=('left', 'right'))
    >>> x = jnp.zeros((4, 36, 36, 1))
    >>> params, model_state = model.init(jax.random.key(0), x)
    >>> sorted(params)
    ['heads_0', 'heads_1', 'trunk']
    >>> features, model_state = model.apply_trunk(
    ...   params, model_state, x, train=True
    ... )
    >>> model.apply_head(1, params, features).shape
    (4, 10)
    >>> model.shared, model.task_patterns
    ('trunk/.*', ['heads_0/.*', 'heads_1/.*'])
  """

  trunk: nn.Module
  heads: tuple[nn.Module, ...]
  tasks: tuple[str, ...]
  tied: tuple[str, ...] = ()
  conventions: Mapping[str, Sharing] = dataclasses.field(
    default_factory=lambda: {'trunk': Sharing('the trunk')}, hash=False
  )

  def __post_init__(self):
    for name in ('heads', 'tasks', 'tied'):
      object.__setattr__(self, name, tuple(getattr(self, name)))
    if not self.conventions:
      raise ValueError(
        'conventions={} is empty: say what is shared by one at least.'
      )
    if not self.tasks:
      raise ValueError('tasks=() is empty: name at least one task.')
    if len(set(self.tasks)) != len(self.tasks):
      raise ValueError(f'tasks={self.tasks!r} repeats a name: rename one.')
    if len(self.heads) != len(self.tasks):
      raise ValueError(
        f'heads has {len(self.heads)} modules for {len(self.tasks)} tasks: '
        'pass one head per task.'
      )

  @property
  def num_tasks(self) -> int:
    """The number of tasks T."""
    return len(self.tasks)

  @property
  def shared(self) -> str:
    """The regular expression of the paths that all losses read."""
    return rf'(?:trunk|{TIED})/.*' if self.tied else r'trunk/.*'

  @property
  def task_patterns(self) -> list[str]:
    """One regular expression per task, matching its own parameters' paths."""
    return [rf'heads_{t}/.*' for t in range(self.num_tasks)]

  def sharings(self, params: Any, name: str = '') -> Sharings:
    """Labels of the parameters by one of the conventions.

    Args:
      params: any tree with the structure and shapes of the parameters.
      name: of the convention; the first by default.

    Returns:
      The labels, those of the Gramian, and how many numbers are shared.

    Raises:
      ValueError: if there is no such convention, or an expression of it matches
        no parameter, or one that is not shared.
    """
    name = name or next(iter(self.conventions))
    _validate.one_of('name', name, self.conventions)
    found = self.conventions[name]
    paths = _labels.path_names(params)
    ours = _labels.matches([self.shared, *found.shared], paths, 'shared')
    flat = [
      _labels.SHARED if i in ours else int(path.split('/')[0].split('_')[1])
      for i, path in enumerate(paths)
    ]
    over, marks = ours, None
    treedef = jax.tree.structure(params)
    if found.gramian:
      over = _labels.matches(found.gramian, paths, 'gramian')
      marks = [i in over for i in range(len(paths))]
      _labels.flatten_gramian_labels(
        jax.tree.unflatten(treedef, marks), flat, params
      )
      marks = jax.tree.unflatten(treedef, marks)
    sizes = [math.prod(x.shape) for x in jax.tree.leaves(params)]
    return Sharings(
      name=name,
      about=found.about,
      labels=jax.tree.unflatten(treedef, flat),
      gramian_labels=marks,
      num_shared=sum(sizes[i] for i in ours),
      num_gramian=sum(sizes[i] for i in over),
      num_params=sum(sizes),
    )

  def init(self, key: jax.Array, x: Any) -> tuple[Params, ModelState]:
    """Draws the parameters; only the shape and dtype of ``x`` are used.

    Args:
      key: a random key.
      x: an example batch, or its `jax.ShapeDtypeStruct`; a tree of them where
        the trunk takes one.

    Returns:
      The parameters and the model state.

    Raises:
      ValueError: if a head has no submodule of a name in ``tied``.
    """
    trunk_key, *head_keys = jax.random.split(key, self.num_tasks + 1)
    model_state = _init(self.trunk, trunk_key, x)
    params = {'trunk': model_state.pop('params', {})}
    features = jax.eval_shape(
      lambda v, x: self.trunk.apply(v, x, train=False),
      {'params': params['trunk'], **model_state},
      _shapes(x),
    )
    for t, (head, head_key) in enumerate(
      zip(self.heads, head_keys, strict=True)
    ):
      own, tied = self._split(_init(head, head_key, features))
      if set(self.tied) - set(tied.get('params', {})):
        raise ValueError(
          f'tied={self.tied}: heads[{t}] has no parameters in some of them, '
          f'only in {sorted({**own["params"], **tied.get("params", {})})}.'
        )
      params[f'heads_{t}'] = own.pop('params', {})
      if own:
        model_state[f'heads_{t}'] = own
      if t == 0 and self.tied:
        params[TIED] = tied.pop('params')
        if tied:
          model_state[TIED] = tied
    return params, model_state

  def _split(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Collections of a head as its own part, and the one of all heads."""
    own, tied = {}, {}
    for collection, found in variables.items():
      mine = {k: x for k, x in found.items() if k not in self.tied}
      ours = {k: x for k, x in found.items() if k in self.tied}
      if mine or not ours:
        own[collection] = mine
      if ours:
        tied[collection] = ours
    return own, tied

  def apply_trunk(
    self,
    params: Params,
    model_state: ModelState,
    x: Any,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Any, ModelState]:
    """Computes the shared features.

    Args:
      params: the parameters; only ``params['trunk']`` is read.
      model_state: the state from `init` or the last call.
      x: a batch, shape ``(B, ...)``, or a tree where the trunk takes one.
      train: use and update batch statistics, apply dropout.
      key: random key, needed where the trunk has dropout and ``train`` is set.
        The same key may be given to `apply_head`.

    Returns:
      The features and the new model state (the same one if not ``train``); what
      heads keep in it is as it was.

    Raises:
      ValueError: if a key is needed and missing.
    """
    own = {k: v for k, v in model_state.items() if not _is_of_heads(k)}
    others = {k: v for k, v in model_state.items() if _is_of_heads(k)}
    variables = {'params': params['trunk'], **own}
    rngs = {} if key is None else {'dropout': jax.random.fold_in(key, 0)}
    kwargs = {'train': train, 'rngs': rngs}
    if not (train and own):
      features = _apply(self.trunk, 'trunk', variables, x, **kwargs)
      return features, model_state
    features, updated = _apply(
      self.trunk, 'trunk', variables, x, mutable=list(own), **kwargs
    )
    return features, {**dict(updated), **others}

  def apply_head(
    self,
    t: int,
    params: Params,
    features: Any,
    *,
    model_state: ModelState | None = None,
    train: bool = False,
    key: jax.Array | None = None,
  ) -> jax.Array:
    """Computes the output of task ``t`` from the shared features.

    Args:
      t: the task's index, a Python int.
      params: the parameters; only those of head ``t`` are read.
      features: the output of `apply_trunk`.
      model_state: needed where heads have state.
      train: apply dropout, use batch statistics.
      key: random key, needed where the head has dropout and ``train`` is set.

    Returns:
      The head's output, such as logits ``(B, classes)``.

    Raises:
      ValueError: if a key or the state is needed and missing.
    """
    return self.apply_head_with_state(
      t, params, model_state or {}, features, train=train, key=key
    )[0]

  def apply_head_with_state(
    self,
    t: int,
    params: Params,
    model_state: ModelState,
    features: Any,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[jax.Array, ModelState]:
    """As `apply_head`, and what the head changes of the model state.

    Args:
      t: the task's index, a Python int.
      params: the parameters.
      model_state: the state; only what head ``t`` keeps in it is read.
      features: the output of `apply_trunk`.
      train: use and update batch statistics, apply dropout.
      key: random key, needed where the head has dropout and ``train`` is set.

    Returns:
      The output, and the entries ``'heads_<t>'`` and ``'tied'`` of the next
      model state; nothing if the head keeps nothing or not ``train``.

    Raises:
      ValueError: if a key or the state is needed and missing.
    """
    rngs = {} if key is None else {'dropout': jax.random.fold_in(key, t + 1)}
    mine = model_state.get(f'heads_{t}', {})
    ours = model_state.get(TIED, {})
    variables = {
      'params': {**params[f'heads_{t}'], **params.get(TIED, {})},
      **{k: {**mine.get(k, {}), **ours.get(k, {})} for k in (*mine, *ours)},
    }
    head, name = self.heads[t], f'heads[{t}]'
    kwargs = {'train': train, 'rngs': rngs}
    if not (train and len(variables) > 1):
      return _apply(head, name, variables, features, **kwargs), {}
    mutable = [x for x in variables if x != 'params']
    output, updated = _apply(
      head, name, variables, features, mutable=mutable, **kwargs
    )
    mine, ours = self._split(updated)
    changed = {f'heads_{t}': mine, TIED: ours}
    return output, {k: x for k, x in changed.items() if k in model_state}

  def apply(
    self, params: Params, model_state: ModelState, x: Any
  ) -> list[jax.Array]:
    """Computes the output of every task, in evaluation mode."""
    features, _ = self.apply_trunk(params, model_state, x, train=False)
    return [
      self.apply_head(t, params, features, model_state=model_state)
      for t in range(self.num_tasks)
    ]


def with_same_heads(
  trunk: nn.Module, head: nn.Module, tasks: Sequence[str]
) -> MultiTaskModel:
  """One head of the same form, with its own parameters, for every task."""
  if isinstance(tasks, str):
    raise ValueError(f'tasks={tasks!r} is a string: pass a tuple of names.')
  tasks = tuple(tasks)
  return MultiTaskModel(trunk=trunk, heads=(head,) * len(tasks), tasks=tasks)
