"""The common battery's table, and how its tests call a method.

A new method joins with one row in `METHODS`. `claims` are properties that the
method promises; each is tested for the methods that declare it.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from mtljax import _labels, _tree


@dataclasses.dataclass(frozen=True)
class Method:
  """One row: a name, how to build it, and what it claims."""

  name: str
  kwargs: dict = dataclasses.field(default_factory=dict)
  per_task: tuple = ()  # keyword arguments that hold one number a task
  claims: frozenset = frozenset()
  around: Callable = lambda tx: tx  # a wrapper of the library
  by_size: dict = dataclasses.field(default_factory=dict)  # functions of T

  @property
  def has_weights(self):
    return self.name not in ('graddrop', 'meta_balance', 'trimmed_mean')

  @property
  def warms_up(self):
    """Whether its first update is 0; what it claims is tested in its file."""
    return self.name == 'm_config'

  def __call__(self, num_tasks, **options):
    kwargs = {k: v for k, v in self.kwargs.items()}
    for k in self.per_task:
      kwargs[k] = kwargs[k][:num_tasks]
    kwargs.update((k, f(num_tasks)) for k, f in self.by_size.items())
    return self.build(num_tasks, **kwargs, **options)

  def build(self, num_tasks, **kwargs):
    """With arguments of one's own."""
    plain = self.name.rpartition('(')[2].rpartition(' ')[2].removesuffix(')')
    return fill(self.around(mtl.get_method(plain)(num_tasks, **kwargs)))


def fill(tx):
  """The method, for which one batch stands for all that it reads."""
  if 'hypergradient' in tx.needs:
    return _fill_hypergradient(tx)
  if at_features(tx):
    return _fill_features(tx)
  if 'cross_gramian' not in tx.needs:
    return tx

  def update(updates, state, params=None, **extra_args):
    cross = mtl.cross_gramian(updates, updates, labels=tx.labels)
    return tx.update(updates, state, params, cross_gramian=cross, **extra_args)

  return tx._replace(update=update)


def hypergradient(tx, grads, mask=None):
  """Of the batch itself, after a step that changes no gradient."""
  rows = -0.1 * mtl.gramian(grads, labels=tx.labels)
  if mask is not None and jnp.shape(mask) == rows.shape[:1]:
    mask = jnp.asarray(mask, bool)
    rows = jnp.where(mask[:, None] & mask[None, :], rows, 0)
  separate = (tx.inner or tx).weighting.lookahead.separate
  return rows if separate else jnp.sum(rows, axis=0)


def _fill_hypergradient(tx):
  def update(updates, state, params=None, **extra_args):
    rows = hypergradient(tx, updates, extra_args.get('task_mask'))
    return tx.update(updates, state, params, hypergradient=rows, **extra_args)

  return tx._replace(update=update)


def at_features(tx):
  return {'feature_norms', 'alignment'} & tx.needs


def features(tx, grads):
  """What is read there, of parameters that are the features themselves."""
  squares = jnp.diagonal(mtl.gramian(grads, labels=tx.labels))
  chunks = (tx.inner or tx).weighting.chunks or 1
  return {
    'feature_norms': jnp.broadcast_to(
      squares[:, None] / chunks, (tx.num_tasks, chunks)
    ),
    'alignment_fn': lambda weights: some_of_heads(tx, grads, weights),
  }


def some_of_heads(tx, grads, weights):
  leaves, treedef = jax.tree.flatten(grads)
  labels = _labels.flatten_labels(tx.labels, grads, tx.num_tasks)
  here = weights != 0
  found = [
    leaf
    if label == 'shared'
    else 0.3 * _tree.present(here if label == 'stacked' else here[label], leaf)
    for leaf, label in zip(leaves, labels, strict=True)
  ]
  return jax.tree.unflatten(treedef, found)


def _fill_features(tx):
  def update(updates, state, params=None, **extra_args):
    found = features(tx, updates)
    return tx.update(updates, state, params, **found, **extra_args)

  return tx._replace(update=update)


def method(name, claims='', per_task=(), **kwargs):
  return Method(name, kwargs, per_task, frozenset(claims.split()))


def towards(name, claims='', **kwargs):
  """With a preference on the simplex."""
  claims = frozenset(claims.split())
  return Method(name, kwargs, claims=claims, by_size={'preference': preference})


def wrapped(wrapper, name, claims='', *args, **kwargs):
  return Method(
    f'{wrapper}({name})',
    claims=frozenset(claims.split()),
    around=lambda tx: getattr(mtl, wrapper)(tx, *args, **kwargs),
  )


def beside(tx):
  """Another method that can be one of several with this one."""
  return mtl.fixed(
    tx.num_tasks,
    weights=[7.0] * tx.num_tasks,
    labels=tx.labels,
    gramian_labels=tx.gramian_labels,
    nonfinite=tx.conventions.nonfinite,
  )


FIXED = tuple(np.linspace(0.5, 2.0, 64).tolist())
LEAK = tuple(np.linspace(0.0, 1.0, 64).tolist())
# Vectors on the simplex; without its middle entry the one of 3 is that of 2.
SIMPLEX = {2: (1, 3), 3: (1, 5, 3)}


def preference(num_tasks):
  shares = np.array(SIMPLEX.get(num_tasks, np.arange(1, num_tasks + 1)))
  return shares / shares.sum()


REFERENCE = tuple(np.linspace(-0.5, 0.2, 64).tolist())
# equivariant: permuting tasks permutes weights
# non_conflicting: no task's loss rises to first order
# stationary: the update is zero where a convex combination of gradients is
# strongly_stationary: where one is in which every task has a positive weight.
#   It follows from non_conflicting, where that holds at such points
# linear: scaling all gradients scales the update
METHODS = [
  method('sum_losses', 'equivariant linear'),
  method('mean', 'equivariant linear'),
  method('fixed', 'linear', per_task=('weights',), weights=FIXED),
  method('rlw', 'linear'),
  method('rlw', 'linear', distribution='dirichlet'),
  method('uncertainty', 'equivariant linear'),
  method('uw_o', 'equivariant linear'),
  method('uw_so', 'equivariant linear'),
  method('dwa', 'equivariant linear', window=1),
  method('geometric', 'equivariant linear'),
  method('stch', 'equivariant linear'),
  method(
    'stch',
    'linear',
    per_task=('preference', 'reference'),
    preference=FIXED,
    reference=REFERENCE,
  ),
  method('stch', 'equivariant linear', warmup_steps=2),
  method('bmtl', 'equivariant linear', temperature=5.0),
  method('bmtl', 'equivariant linear', normalize=True),
  method('cosmos', 'equivariant linear'),
  method('cosmos', 'linear', per_task=('preference',), preference=FIXED),
  method('pbi', 'equivariant linear'),
  method(
    'pbi',
    'linear',
    per_task=('preference', 'reference'),
    preference=FIXED,
    reference=REFERENCE,
  ),
  method('famo', 'equivariant linear'),
  method('famo', 'linear', per_task=('min_losses',), min_losses=REFERENCE),
  method('slaw', 'equivariant linear'),
  method('igb', 'equivariant linear', warmup_steps=1),
  method('relobralo', 'equivariant linear', keep_probability=0.5),
  method('ldc_mtl', 'linear'),
  method('ldc_mtl', 'linear', strength=0.5, normalize='none'),
  method('coba', 'equivariant linear', warmup_steps=2, window=3),
  method('coba', 'equivariant linear', source='validation'),
  method('go4align', 'equivariant linear'),
  method('imtl_l', 'equivariant linear'),
  method('imtl', 'equivariant linear'),
  method(
    'pivrg', 'equivariant non_conflicting', per_task=('scores',), scores=FIXED
  ),
  method('pcgrad', 'linear'),
  method('gradvac', 'linear'),
  method('aligned_mtl', 'equivariant linear'),
  method('aligned_mtl', 'equivariant linear', scale_mode='median'),
  method('aligned_mtl', 'equivariant linear', scale_mode='mean'),
  method('upgrad', 'equivariant non_conflicting strongly_stationary linear'),
  method(
    'upgrad',
    'non_conflicting strongly_stationary linear',
    per_task=('preference',),
    preference=FIXED,
  ),
  method('dual_proj', 'equivariant non_conflicting strongly_stationary linear'),
  method('conflict_free', 'equivariant linear'),
  method('pcd'),
  method('krum', 'equivariant linear', num_byzantine=0, num_selected=2),
  method('slw', 'equivariant linear'),
  method('balancer', 'equivariant'),
  method('balancer', per_task=('preference',), preference=FIXED),
  method('emtl', 'equivariant linear'),
  method('emtl', 'equivariant linear', form='soft'),
  method('gradnorm', 'equivariant linear'),
  method(
    'mgda',
    'equivariant non_conflicting stationary strongly_stationary linear',
  ),
  method('mgda', 'equivariant linear', normalize='loss+'),
  method('cagrad', 'equivariant linear'),
  method('cagrad', 'equivariant linear', rescale='c_squared'),
  Method(
    'cagrad',
    claims=frozenset({'linear'}),
    by_size={'subset': lambda num_tasks: max(num_tasks - 2, 1)},
  ),
  method('conic_grad', 'equivariant linear'),
  method('conic_grad', 'equivariant linear', c=0.95),
  method('epo', 'equivariant linear'),
  towards('epo', 'linear'),
  # Without others to be apart from, it is `mgda`.
  method(
    'pmtl',
    'equivariant linear non_conflicting strongly_stationary stationary',
  ),
  Method(
    'pmtl',
    {'warmup_steps': 1},
    claims=frozenset({'linear'}),
    by_size={
      'preference': lambda num_tasks: preference(num_tasks)[::-1],
      'others': lambda num_tasks: preference(num_tasks)[None],
    },
  ),
  # Points of a hull that are as good as each other are many.
  method('pmgda'),
  towards('pmgda'),
  method('imtl_g', 'equivariant linear'),
  method('nash_mtl', 'equivariant non_conflicting'),
  method('fairgrad', 'equivariant non_conflicting'),
  method('fairgrad', 'equivariant non_conflicting', alpha=1.0),
  method('auto_lambda', 'equivariant', learning_rate=0.03),
  method('auto_lambda', 'equivariant', projection='softmax', learning_rate=0.3),
  method('moml', 'equivariant'),
  method('ntkmtl_sr', 'equivariant linear'),
  method('ntkmtl_sr', 'equivariant linear', power=0.75, chunks=2),
  method('cons_mtl', 'equivariant non_conflicting'),
  method('cons_mtl', 'equivariant non_conflicting', max_ratio=None),
  method('modo', 'equivariant'),
  method('sdmgrad', 'equivariant'),
  method('sdmgrad', 'equivariant linear', normalize=True),
  method('sdmgrad', per_task=('preference',), preference=FIXED),
  method('graddrop', 'equivariant linear'),
  method('graddrop', 'linear', per_task=('leak',), leak=LEAK),
  Method(
    'trimmed_mean',
    claims=frozenset({'equivariant', 'linear'}),
    by_size={'trim': lambda num_tasks: (num_tasks - 1) // 2},
  ),
  method('trimmed_mean', 'equivariant linear', trim=0),
  method('excess_mtl', 'equivariant linear'),
  method('excess_mtl', 'equivariant', first_step='absolute', learning_rate=1.0),
  method('meta_balance', 'linear'),
  method('lr_annealing', 'linear'),
  method('m_config'),
  method('gcond'),
  method('son_goku', 'linear', anneal_steps=0, refresh_steps=2),
  method('moco', 'equivariant'),
  method('moco', 'equivariant', normalize=True, projection='softmax'),
  method('db_mtl', 'equivariant linear'),
  wrapped('cr_mogm', 'uw_o', 'equivariant linear'),
  wrapped('every_k', 'slw', 'equivariant linear', 2),
  wrapped('freeze_after', 'uw_so', 'equivariant linear', 2),
  Method(
    'select(fixed, upgrad)',
    claims=frozenset(
      {'equivariant', 'non_conflicting', 'linear', 'strongly_stationary'}
    ),
    around=lambda tx: mtl.select([beside(tx), tx], 1),
  ),
]
# The plumbing is the same for every variant of a method, so it is tested once.
FIRST = list({m.name: m for m in reversed(METHODS)}.values())[::-1]
ALL = pytest.mark.parametrize('m', FIRST, ids=lambda m: m.name)
VARIANTS = pytest.mark.parametrize('m', METHODS, ids=lambda m: m.name)


def claiming(claim):
  chosen = [m for m in METHODS if claim in m.claims]
  return pytest.mark.parametrize('m', chosen, ids=lambda m: m.name)


LABELS = {'trunk': 'shared', 'heads_0': 0, 'heads_1': 1, 'fused': 'stacked'}


def make_params(dtype=jnp.float32):
  return {
    'trunk': {'w': jnp.ones((3, 4), dtype), 'b': jnp.zeros(4, dtype)},
    'heads_0': jnp.ones(2, dtype),
    'heads_1': jnp.ones((2, 2), dtype),
    'fused': jnp.ones((2, 3), dtype),
  }


def make_grads(seed=0, dtype=jnp.float32):
  """Gradients of two tasks for `make_params`, conflicting mildly."""
  keys = iter(jax.random.split(jax.random.key(seed), 8))

  def one(p, label):
    shape = (2, *p.shape) if label == 'shared' else p.shape
    return jax.random.normal(next(keys), shape, jnp.float32).astype(dtype)

  params = make_params()
  labels = jax.tree.broadcast(LABELS, params)
  return jax.tree.map(one, params, labels)


LOSSES = jnp.array([0.7, 2.0])


def run(tx, steps=3, dtype=jnp.float32, update=None):
  params = make_params(dtype)
  state = tx.init(params)
  update = update or tx.update
  out = None
  for i in range(steps):
    out, state = update(make_grads(i, dtype), state, params, losses=LOSSES)
  return out, state


def rows(tx, jacobian, losses=None, steps=1):
  """The update, and the weights, for the rows of a matrix."""
  jacobian = jnp.asarray(jacobian)
  params = jnp.zeros(jacobian.shape[1:], jacobian.dtype)
  if losses is None:
    losses = jnp.ones(jacobian.shape[0], jacobian.dtype)
  state = tx.init(params)
  for _ in range(steps):
    out, state = tx.update(jacobian, state, params, losses=losses)
  return out, weights_of(state)


def weights_of(state):
  """The weights, or None for a method without them."""
  try:
    return mtl.get_weights(state)
  except ValueError:
    return None
