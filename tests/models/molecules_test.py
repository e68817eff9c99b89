"""NNConv and SchNet: parameters, symmetries, padding, routes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import models
from mtljax.training import make_train_step

SIZES = (5, 3, 1, 0, 4)  # atoms; one has none, as where a batch is filled up
TASKS = ('a', 'b', 'c')
SMALL = {
  'width': 16,
  'edge_width': 32,
  'num_gaussians': 20,
  'extensive': True,
}
MODELS = {
  'nnconv': functools.partial(
    models.nnconv, width=4, edge_width=6, num_rounds=2, num_readout_steps=2
  ),
  'nnconv_extensive': functools.partial(
    models.nnconv,
    width=4,
    edge_width=6,
    num_rounds=2,
    num_readout_steps=2,
    num_gaussians=5,
    extensive=True,
  ),
  'schnet': functools.partial(
    models.schnet, width=6, num_filters=5, num_interactions=2, cutoff=2.5
  ),
}


def make_molecules(sizes=SIZES, padded=6, dtype=np.float64):
  rng = np.random.default_rng(0)
  atoms = np.arange(padded) < np.array(sizes)[:, None]
  numbers = np.zeros(atoms.shape, np.uint8)
  numbers[atoms] = rng.choice([1, 6, 7, 8, 9], atoms.sum())
  positions = np.zeros((*atoms.shape, 3), dtype)
  positions[atoms] = rng.uniform(-1.5, 1.5, (atoms.sum(), 3))
  return {'numbers': jnp.asarray(numbers), 'positions': jnp.asarray(positions)}


def build(name, dtype=jnp.float64, tasks=TASKS, **options):
  model = MODELS[name](tasks, **options)
  x = make_molecules(dtype=dtype)
  params, model_state = jax.jit(model.init)(jax.random.key(0), x)
  assert not model_state
  # Biases begin at zero, where little can be seen of them.
  keys = iter(jax.random.split(jax.random.key(1), 99))
  params = jax.tree.map(
    lambda p: (
      p.astype(dtype) + 0.3 * jax.random.normal(next(keys), p.shape, dtype)
    ),
    params,
  )
  return model, params, x


def outputs(model, params, x):
  return np.stack(jax.jit(model.apply)(params, {}, x))


def count(tree):
  return sum(p.size for p in jax.tree.leaves(tree))


def parameters(model, x):
  return jax.eval_shape(model.init, jax.random.key(0), x)[0]


def test_parameters_of_the_papers():
  x = make_molecules(dtype=np.float32)
  eleven = [str(t) for t in range(11)]
  atoms = x['numbers'].shape
  full = x | {
    'nodes': jnp.zeros((*atoms, 11)),
    'edges': jnp.zeros((*atoms, atoms[1], 5)),
  }
  found = parameters(models.nnconv(eleven), full)
  assert count(found['trunk']) == 616_960
  assert count(found) == 617_675
  parts = {name: count(part) for name, part in found['trunk'].items()}
  assert parts == {
    'nodes': 768,
    'edge': 768,
    'conv': 128 * 64 * 64 + 64 * 64,
    'root': 4_160,
    'gru': 24_960,
    'set2set': 49_664,
    'out': 8_256,
  }
  reduced = parameters(models.nnconv(eleven), x)
  # Six features of an atom and one of an edge.
  assert count(reduced['trunk']) == 616_960 - 5 * 64 - 4 * 128
  assert count(parameters(models.nnconv(eleven, **SMALL), x)) == 15_307
  assert count(parameters(models.schnet(['u0']), x)) == 455_809


@pytest.mark.parametrize('extensive', [False, True])
def test_messages_reordered_are_those_of_the_matrices(extensive, x64):
  name = 'nnconv_extensive' if extensive else 'nnconv'
  model, params, x = build(name)
  naive = MODELS[name](TASKS, form='matrices')

  def total(model, params):
    return sum(jnp.sum(jnp.cos(y)) for y in model.apply(params, {}, x))

  found, expected = (
    jax.jit(jax.value_and_grad(functools.partial(total, m)))(params)
    for m in (model, naive)
  )
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_no_matrix_an_edge_is_held():
  """At the width of the papers a step takes a tenth of the memory."""
  found = {}
  for form in ('reordered', 'matrices'):
    model = models.nnconv(('a',), num_rounds=2, form=form)
    x = make_molecules((18, 20), padded=29, dtype=np.float32)
    params = parameters(model, x)

    def loss(params, model=model, x=x):
      return jnp.sum(model.apply(params, {}, x)[0] ** 2)

    step = jax.jit(jax.grad(loss)).lower(params).compile()
    found[form] = step.memory_analysis().temp_size_in_bytes
  assert found['reordered'] < found['matrices'] / 10


def test_a_message_by_hand(x64):
  """Of two atoms, from the definition."""
  rng = np.random.default_rng(0)
  x, hidden = rng.normal(size=(1, 2, 3)), rng.normal(size=(1, 2, 2, 4))
  pairs = 1 - np.eye(2)[None]
  hidden *= pairs[..., None]
  conv = models.NNConv(2)
  variables = conv.init(
    jax.random.key(0), *map(jnp.asarray, (x, hidden, pairs))
  )
  kernel = rng.normal(size=(4, 6))
  bias = rng.normal(size=6)
  assert jax.tree.map(jnp.shape, variables['params']) == {
    'kernel': (4, 6),
    'bias': (6,),
  }
  found = conv.apply(
    {'params': {'kernel': kernel, 'bias': bias}}, x, hidden, pairs
  )
  for i, j in ((0, 1), (1, 0)):
    matrix = (hidden[0, i, j] @ kernel + bias).reshape(3, 2)
    np.testing.assert_allclose(found[0, i], x[0, j] @ matrix, rtol=1e-12)


def test_the_recurrent_unit_by_hand(x64):
  from mtljax.models import _nnconv

  rng = np.random.default_rng(0)
  x, state = rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 3, 2))
  unit = _nnconv._GRU(2)
  params = jax.tree.map(
    lambda p: rng.normal(size=p.shape),
    unit.init(jax.random.key(0), x, state),
  )
  of = lambda name, y: (
    y @ params['params'][name]['kernel'] + params['params'][name]['bias']
  )
  a, b = of('input', x), of('state', state)
  sigmoid = lambda y: 1 / (1 + np.exp(-y))
  r, z = sigmoid(a + b)[..., :2], sigmoid(a + b)[..., 2:4]
  n = np.tanh(a[..., 4:] + r * b[..., 4:])
  expected = (1 - z) * n + z * state
  np.testing.assert_allclose(unit.apply(params, x, state), expected, rtol=1e-12)


@pytest.mark.parametrize('name', MODELS)
def test_padding_changes_nothing(name, x64):
  model, params, x = build(name)
  wide = {
    'numbers': jnp.pad(x['numbers'], ((0, 0), (0, 3))),
    # What stands where there is no atom does not matter.
    'positions': jnp.pad(
      x['positions'], ((0, 0), (0, 3), (0, 0)), constant_values=0.7
    ),
  }
  found = outputs(model, params, wide)
  np.testing.assert_allclose(found, outputs(model, params, x), rtol=1e-12)
  assert np.isfinite(found).all()


@pytest.mark.parametrize('name', MODELS)
def test_order_place_and_direction_do_not_matter(name, x64):
  model, params, x = build(name)
  expected = outputs(model, params, x)
  order = np.random.default_rng(1).permutation(x['numbers'].shape[1])
  turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
  moved = {
    'numbers': x['numbers'][:, order],
    'positions': (x['positions'] @ turn + 2.0)[:, order],
  }
  found = outputs(model, params, moved)
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  # But distances and kinds do.
  other = x | {'positions': 1.1 * x['positions']}
  assert abs(outputs(model, params, other) - expected)[:, 0].min() > 1e-6
  other = x | {'numbers': jnp.where(x['numbers'] == 6, 7, x['numbers'])}
  changed = np.asarray((x['numbers'] == 6).any(1))
  assert abs(outputs(model, params, other) - expected)[:, changed].min() > 1e-6


def test_atoms_beyond_the_cutoff_are_apart(x64):
  model, params, _ = build('schnet')
  numbers = jnp.array([[8, 1]], jnp.uint8)
  at = lambda d: {
    'numbers': numbers,
    'positions': jnp.array([[[0.0, 0, 0], [d, 0, 0]]]),
  }
  far, farther, near = (outputs(model, params, at(d)) for d in (2.6, 9.0, 2.4))
  np.testing.assert_allclose(far, farther, rtol=1e-12)
  assert abs(far - near).max() > 1e-9


@pytest.mark.parametrize('name', MODELS)
def test_every_route_is_the_jacobian(name, x64):
  model, params, x = build(name, tasks=TASKS[:2])
  labels = mtl.label_params(
    params, shared=model.shared, tasks=model.task_patterns
  )

  def loss(output, x, t):
    del x
    return 10.0**t * jnp.mean(jnp.cos(output * (t + 1)) + output**2), {}

  losses = [functools.partial(loss, t=t) for t in range(model.num_tasks)]
  staged = models.staged_loss(model, losses, lambda x: x)

  def change(**options):
    train = make_train_step(
      mtl.fairgrad(model.num_tasks, labels=labels),
      optax.sgd(1.0),
      staged,
      has_state=True,
      **options,
    )
    state = train.init(params, key=jax.random.key(2), model_state={})
    state, _ = train.step(state, x)
    pairs = zip(
      jax.tree.leaves(params), jax.tree.leaves(state.params), strict=True
    )
    return np.concatenate([np.ravel(b - a) for a, b in pairs])

  expected = change(route='jacobian', mode='unroll')
  for route, mode in (
    ('gramian', 'vmap'),
    ('layerwise', 'unroll'),
    ('layerwise', 'vmap'),
    ('jacobian', 'vmap'),
  ):
    error = np.linalg.norm(change(route=route, mode=mode) - expected)
    assert error <= 1e-10 * np.linalg.norm(expected), (route, mode)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: models.nnconv(('a',), width=0), 'width=0'),
    (lambda: models.nnconv(('a',), num_gaussians=-1), 'num_gaussians=-1'),
    (lambda: models.nnconv(('a',), form='matrixes'), "mean 'matrices'"),
    (lambda: models.nnconv('mu'), 'is a string'),
    (lambda: models.schnet(('a',), width=7), 'width=7 must be even'),
    (lambda: models.schnet(('a',), cutoff=0.0), 'cutoff=0.0'),
  ],
)
def test_bad_arguments_are_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_bad_molecules_are_named():
  model, x = models.nnconv(('a',)), make_molecules()
  with pytest.raises(ValueError, match="no 'positions'"):
    model.init(jax.random.key(0), {'numbers': x['numbers']})
  with pytest.raises(ValueError, match=r'positions \(5, 5, 3\)'):
    model.init(jax.random.key(0), x | {'positions': x['positions'][:, :5]})
  assert isinstance(model.trunk, nn.Module)
