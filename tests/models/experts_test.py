"""MMoE, CGC, PLE and DSelect-k: sizes, identities, and every route."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import models
from mtljax.training import make_train_step

TASKS = ('a', 'b', 'c')
T, B, D, H = 3, 5, 7, 4
KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (B, D))
ROWS = {
  'numeric': jax.random.normal(jax.random.key(2), (B, 2)),
  'categorical': jax.random.randint(jax.random.key(3), (B, 2), -1, 4),
}
EMBED = models.EmbedColumns((4, 5), size=3)

BUILD = {
  'mmoe': functools.partial(models.mmoe, num_experts=3),
  'mmoe_deep': functools.partial(
    models.mmoe, num_experts=2, expert_sizes=(5, H), head_sizes=(3,)
  ),
  'cgc': functools.partial(models.cgc, num_shared=2, num_own=1),
  'ple': functools.partial(models.ple, num_shared=2, num_own=1),
  'ple_of_three_levels': functools.partial(
    models.ple, num_levels=3, num_shared=1, num_own=2
  ),
  'ple_without_own': functools.partial(models.ple, num_own=0),
  'ple_without_shared_gate': functools.partial(
    models.ple, num_levels=3, num_shared=2, num_own=1, shared_gate=False
  ),
  'dselect_k': functools.partial(models.dselect_k, num_experts=5),
  'dselect_k_per_example': functools.partial(
    models.dselect_k, num_experts=4, per_example=True, entropy_weight=0.1
  ),
}


def build(name, **kwargs):
  settings = {'num_classes': (1, 2, 1), 'expert_sizes': (H,)} | kwargs
  partial = BUILD[name]
  for given in partial.keywords:
    settings.pop(given, None)
  return partial(TASKS, **settings)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes_of(model, x=X):
  return jax.eval_shape(model.init, KEY, x)[0]


def square(output, batch):
  del batch
  return jnp.mean(jnp.sin(output + 1) ** 2), {}


def problem(name, encoder):
  """Model, parameters in float64, their labels, the loss and a batch."""
  model = build(name, encoder=EMBED if encoder else None)
  batch = jax.tree.map(
    lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a,
    ROWS if encoder else X,
  )
  params, _ = jax.jit(model.init)(KEY, batch)
  # Experts that are all on, so that no ReLU hides a gradient.
  params = jax.tree.map(lambda p: p.astype(jnp.float64) + 0.05, params)
  labels = mtl.label_params(
    params, shared=model.shared, tasks=model.task_patterns
  )
  loss = models.staged_loss(model, [square] * T, lambda batch: batch)
  return model, params, labels, loss, batch


EMBEDDED = ('ple', 'dselect_k_per_example')


@pytest.mark.parametrize(
  ('name', 'encoder'),
  [*((name, False) for name in BUILD), *((name, True) for name in EMBEDDED)],
)
def test_every_route_is_the_jacobian(name, encoder, x64):
  """Against plain autodiff of each task's loss, not a route of ours."""
  _, params, labels, loss, batch = problem(name, encoder)
  args = (batch, {}, None)

  def plain(params):
    features, _ = loss.trunk(params, *args)
    return [h(params, features, *args)[0] for h in loss.heads]

  @jax.jit
  def compute(params):
    losses, pull = jax.vjp(plain, params)
    rows = [
      pull([jnp.asarray(float(s == t)) for s in range(T)])[0] for t in range(T)
    ]
    own = dict(labels=labels, has_aux=True)
    grads = mtl.value_and_task_grads(loss, **own)(params, *args)
    gramians = [
      mtl.value_and_gramian(loss, **own, **more)(params, *args)[1]
      for more in ({}, {'layerwise': True})
    ]
    return jnp.stack(losses), rows, grads, gramians

  losses, rows, ((got, _), grads), gramians = compute(params)
  np.testing.assert_allclose(got, losses, rtol=1e-10)
  shared = [jax.tree.leaves(row['trunk']) for row in rows]
  for leaf, *wanted in zip(
    jax.tree.leaves(grads['trunk']), *shared, strict=True
  ):
    np.testing.assert_allclose(leaf, np.stack(wanted), rtol=1e-10, atol=1e-12)
  for t, row in enumerate(rows):
    # What a head owns is read by its task alone.
    for s in range(T):
      own = jax.tree.leaves(row[f'heads_{s}'])
      if s != t:
        assert not any(g.any() for g in own)
        continue
      for g, wanted in zip(
        jax.tree.leaves(grads[f'heads_{t}']), own, strict=True
      ):
        np.testing.assert_allclose(g, wanted, rtol=1e-10, atol=1e-12)
  flat = np.stack([np.concatenate([g.ravel() for g in x]) for x in shared])
  gramian = flat @ flat.T
  assert (np.diag(gramian) > 1e-8).all()
  for found in gramians:
    np.testing.assert_allclose(
      found, gramian, rtol=1e-10, atol=1e-10 * gramian.max()
    )


@pytest.mark.parametrize('name', ['ple'])
def test_steps_by_every_route(name, x64):
  """The features' Gramian is another one, but one task's sum needs none."""
  _, params, labels, loss, batch = problem(name, True)
  changes = {}
  for method, routes in (
    (mtl.cagrad(T, labels=labels), ('jacobian', 'gramian', 'layerwise')),
    (mtl.sum_losses(T, labels=labels), ('jacobian', 'features', 'losses')),
  ):
    for route in routes:
      train = make_train_step(
        method, optax.sgd(1.0), loss, route=route, has_state=True
      )
      start = train.init(
        jax.tree.map(jnp.copy, params), key=KEY, model_state={}
      )
      state, _ = train.step(start, batch)
      changes[route] = jax.tree.leaves(state.params)
    for route in routes[1:]:
      for got, wanted in zip(changes[route], changes[routes[0]], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('name', ['ple', 'dselect_k_per_example'])
def test_raw_inputs_are_no_features_with_a_gradient(name, x64):
  """What is taken at the features is taken at the experts' outputs alone."""
  _, params, _, loss, batch = problem(name, False)
  features, _ = jax.jit(loss.trunk)(params, batch, {}, None)
  grad = lambda h: jax.jit(jax.grad(lambda f: h(params, f, batch, {}, None)[0]))
  grads = [grad(h)(features) for h in loss.heads]
  for g in grads:
    inputs = jax.tree.leaves(g.inputs)
    assert all(not x.any() for x in inputs)
    assert any(x.any() for x in jax.tree.leaves(g))


def test_parameters_are_counted():
  expert, gate = D * H + H, (D + 1)
  tower = lambda n: (H + 1) * n
  towers = sum(map(tower, (1, 2, 1)))
  shared = lambda name: count(shapes_of(build(name))['trunk'])
  total = lambda name: count(shapes_of(build(name))) - towers
  assert shared('mmoe') == 3 * expert
  assert total('mmoe') == 3 * expert + T * gate * 3
  assert shared('cgc') == 2 * expert
  assert total('cgc') == (2 + T * 1) * expert + T * gate * (2 + 1)
  inner, inner_gate = H * H + H, H + 1
  levels = (2 + T) * (expert + inner) + T * 3 * (gate + inner_gate)
  assert total('ple') == levels + gate * (2 + T * 1)
  assert shared('ple') == (2 + T) * expert + 2 * inner + gate * (2 + T)
  three = (1 + 2 * T) * (expert + 2 * inner) + T * 3 * (gate + 2 * inner_gate)
  assert total('ple_of_three_levels') == (
    three + (gate + inner_gate) * (1 + T * 2)
  )
  # LibMTL's has no shared gate, and the rest.
  apart = (2 + T) * (expert + 2 * inner) + T * 3 * (gate + 2 * inner_gate)
  assert total('ple_without_shared_gate') == apart
  k, bits = 2, 3
  assert total('dselect_k') == 5 * expert + T * k * (bits + 1)
  assert total('dselect_k_per_example') == (
    4 * expert + T * k * (2 + 1) * (D + 1)
  )


@pytest.mark.parametrize('name', BUILD)
def test_owners_and_shapes(name):
  model = build(name, encoder=EMBED)
  params, state = jax.eval_shape(model.init, KEY, ROWS)
  outputs = jax.eval_shape(model.apply, params, state, ROWS)
  assert [y.shape for y in outputs] == [(B, 1), (B, 2), (B, 1)]
  assert not state
  assert params['trunk']['encoder']['table'].shape == (9, 3)
  patterns = [model.shared, *model.task_patterns]
  for path in mtl._labels.path_names(params):
    assert sum(bool(re.fullmatch(p, path)) for p in patterns) == 1


def test_one_level_is_cgc_and_without_own_experts_mmoe():
  """The same numbers from the same parameters."""
  same = dict(num_classes=2, expert_sizes=(H,), head_sizes=(3,))
  one = models.ple(TASKS, num_levels=1, num_shared=2, num_own=1, **same)
  cgc = models.cgc(TASKS, num_shared=2, num_own=1, **same)
  params, _ = one.init(KEY, X)
  jax.tree.map(np.testing.assert_array_equal, params, cgc.init(KEY, X)[0])
  outputs = [model.apply(params, {}, X) for model in (one, cgc)]
  np.testing.assert_array_equal(*outputs)
  none = models.ple(TASKS, num_levels=1, num_shared=3, num_own=0, **same)
  mmoe = models.mmoe(TASKS, num_experts=3, **same)
  params, _ = mmoe.init(KEY, X)
  outputs = [model.apply(params, {}, X) for model in (none, mmoe)]
  np.testing.assert_array_equal(*outputs)


def test_mmoe_by_hand():
  model = models.mmoe(('a', 'b'), 1, num_experts=2, expert_sizes=(H,))
  params, _ = model.init(KEY, X)
  layer, head = params['trunk']['experts']['fc1'], params['heads_1']
  experts = np.stack(
    [
      np.maximum(X @ layer['kernel'][e] + layer['bias'][e][None], 0)
      for e in range(2)
    ],
    1,
  )
  logits = X @ head['gate']['kernel'] + head['gate']['bias'][None]
  weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  mixed = (weights[:, :, None] * experts).sum(1)
  out = head['tower']['out']
  wanted = mixed @ out['kernel'] + out['bias'][None]
  np.testing.assert_allclose(model.apply(params, {}, X)[1], wanted, atol=1e-5)


def test_the_shared_gate_mixes_the_experts_of_all_tasks():
  """With it, a task's loss reaches another's experts; LibMTL's does not."""
  for shared_gate, reached in ((True, True), (False, False)):
    model = models.ple(TASKS, 1, expert_sizes=(H,), shared_gate=shared_gate)
    params, _ = model.init(KEY, X)
    output = lambda p, m=model: jnp.sum(m.apply(p, {}, X)[0] ** 2)
    grads = jax.jit(jax.grad(output))(params)['trunk']
    of_another = jax.tree.leaves(grads['level1_1'])
    assert any(g.any() for g in of_another) is reached
    assert all(g.any() for g in jax.tree.leaves(grads['level1_0']))


def test_smooth_step():
  t = jnp.linspace(-2, 2, 9)
  for gamma in (0.5, 1.0, 3.0):
    s = models.smooth_step(t, gamma)
    np.testing.assert_array_equal(s[t <= -gamma / 2], 0)
    np.testing.assert_array_equal(s[t >= gamma / 2], 1)
    np.testing.assert_allclose(s + s[::-1], 1, atol=1e-6)
    slope = jax.vmap(jax.grad(models.smooth_step), (0, None))(t, gamma)
    inside = np.abs(t) < gamma / 2
    wanted = 1.5 / gamma - 6 * t**2 / gamma**3
    np.testing.assert_allclose(slope[inside], wanted[inside], rtol=1e-5)
    np.testing.assert_array_equal(slope[np.abs(t) > gamma / 2], 0)
  with pytest.raises(ValueError, match='gamma=0'):
    models.smooth_step(t, 0)


@pytest.mark.parametrize('per_example', [False, True])
@pytest.mark.parametrize('num_experts', [2, 5, 8])
def test_selectors(num_experts, per_example):
  """Their weights sum to one for powers of two; saturated, k are not zero."""
  model = models.dselect_k(
    ('a',), 1, num_experts, per_example=per_example, expert_sizes=(H,)
  )
  params, _ = model.init(KEY, X)
  features, _ = model.apply_trunk(params, {}, X, train=False)

  def weights(scale):
    own = jax.tree.map(lambda p: p * scale, params['heads_0'])
    selectors, shares = model.heads[0].apply(
      {'params': own}, features, method='selectors'
    )
    return jnp.einsum('...k,...ke->...e', shares, selectors)

  whole = num_experts in (2, 8)
  start = weights(1.0)
  assert start.shape == ((B,) if per_example else ()) + (num_experts,)
  assert (start > 0).all()
  assert (np.abs(start.sum(-1) - 1) < 1e-5).all() == whole
  sparse = weights(1e6)
  assert ((sparse != 0).sum(-1) <= 2).all()
  np.testing.assert_allclose(
    start, 1 / 2 ** np.ceil(np.log2(num_experts)), rtol=0.3
  )


def test_selectors_begin_as_published():
  model = models.dselect_k(
    ('a',), 1, 8, num_selected=64, gamma=2.0, expert_sizes=(H,)
  )
  gate = model.init(KEY, X)[0]['heads_0']['gate']
  for name, bound in (('z', 0.02), ('w', 0.05)):
    assert np.abs(gate[name]).max() <= bound
    assert np.abs(gate[name]).max() > 0.9 * bound
    assert abs(np.mean(gate[name])) < 0.3 * bound


def test_a_code_names_its_expert():
  """The bits of a saturated z, the highest first, are the expert's number."""
  model = models.dselect_k(('a',), 1, 8, num_selected=1, expert_sizes=(H,))
  params, _ = model.init(KEY, X)
  features, _ = model.apply_trunk(params, {}, X, train=False)
  for e in range(8):
    z = jnp.array([[float(bit) - 0.5 for bit in f'{e:03b}']])
    own = {**params['heads_0'], 'gate': {'z': z, 'w': jnp.zeros(1)}}
    selectors, _ = model.heads[0].apply(
      {'params': own}, features, method='selectors'
    )
    np.testing.assert_array_equal(selectors[0], np.eye(8)[e])


def test_the_penalty():
  uneven = np.array([[0.7, 0.1, 0.2], [0.2, 0.2, 0.1]])
  entropy = -(uneven * np.log(uneven)).sum()
  wanted = 0.5 * entropy + (1 / uneven.sum(1)).sum()
  found = models.selection_penalty(jnp.asarray(uneven), 0.5)
  np.testing.assert_allclose(found, wanted, rtol=1e-4)
  batch = jnp.stack([jnp.asarray(uneven), jnp.full((2, 3), 1 / 3)])
  other = 0.5 * 2 * np.log(3) + 2
  np.testing.assert_allclose(
    models.selection_penalty(batch, 0.5), (wanted + other) / 2, rtol=1e-4
  )


def test_the_loss_of_a_task_has_its_penalty():
  """And its selectors a gradient from it, those of the others none."""
  losses, grads = [], []
  for weight in (0.0, 1.0):
    model = models.dselect_k(
      ('a', 'b'), 1, 4, expert_sizes=(H,), entropy_weight=weight
    )
    params, _ = model.init(KEY, X)
    loss = models.staged_loss(model, [square] * 2, lambda batch: batch)
    labels = mtl.label_params(
      params, shared=model.shared, tasks=model.task_patterns
    )
    fun = mtl.value_and_task_grads(loss, labels=labels, has_aux=True)
    (found, _), grad = jax.jit(fun)(params, X, {}, None)
    losses.append(found)
    grads.append(grad)
  features, _ = model.apply_trunk(params, {}, X, train=False)
  for t in range(2):
    own = {'params': params[f'heads_{t}']}
    penalty = model.heads[t].apply(own, features, method='penalty')
    np.testing.assert_allclose(losses[1][t] - losses[0][t], penalty, rtol=1e-4)
    z = [g[f'heads_{t}']['gate']['z'] for g in grads]
    assert np.abs(z[1] - z[0]).max() > 1e-6
  np.testing.assert_allclose(
    grads[0]['trunk']['experts']['fc1']['kernel'],
    grads[1]['trunk']['experts']['fc1']['kernel'],
    rtol=1e-5,
    atol=1e-7,
  )


def test_embedded_columns():
  variables = EMBED.init(KEY, ROWS)
  table = variables['params']['table']
  out = EMBED.apply(variables, ROWS)
  np.testing.assert_array_equal(out[:, :2], ROWS['numeric'])
  codes = np.asarray(ROWS['categorical'])
  assert (codes < 0).any()
  for column, (start, code) in enumerate(zip((0, 4), codes.T, strict=True)):
    found = out[:, 2 + 3 * column : 5 + 3 * column]
    wanted = np.where(code[:, None] < 0, 0, table[start + np.maximum(code, 0)])
    np.testing.assert_array_equal(found, wanted)
  with pytest.raises(ValueError, match='is not one a column'):
    models.EmbedColumns((4,)).init(KEY, ROWS)


def test_multi_mlp_on_embedded_columns():
  model = models.multi_mlp(('a', 'b'), 1, hidden_sizes=(H,), encoder=EMBED)
  params, state = model.init(KEY, ROWS)
  assert params['trunk']['fc1']['kernel'].shape == (2 + 2 * 3, H)
  assert [y.shape for y in model.apply(params, state, ROWS)] == [(B, 1)] * 2


def test_dropout_is_drawn_from_the_key():
  model = models.ple(TASKS, 1, dropout_rate=0.5, expert_sizes=(H,))
  params, _ = model.init(KEY, X)
  with pytest.raises(ValueError, match='key=None, but trunk draws'):
    model.apply_trunk(params, {}, X, train=True)
  run = lambda key: model.apply_head(
    0,
    params,
    model.apply_trunk(params, {}, X, train=True, key=key)[0],
    train=True,
    key=key,
  )
  np.testing.assert_array_equal(run(KEY), run(KEY))
  assert not np.allclose(run(KEY), run(jax.random.key(5)))


@pytest.mark.parametrize(
  ('make', 'kwargs', 'message'),
  [
    (models.mmoe, {'tasks': 'a'}, 'is a string'),
    (models.mmoe, {'num_classes': (1,)}, 'each of the 3 tasks'),
    (models.mmoe, {'num_experts': 0}, 'num_experts=0'),
    (models.mmoe, {'expert_sizes': ()}, r'expert_sizes=\(\)'),
    (models.mmoe, {'expert_sizes': (0,)}, 'expert_sizes=0'),
    (models.mmoe, {'head_sizes': (0,)}, 'head_sizes=0'),
    (models.cgc, {'num_own': -1}, 'num_own=-1'),
    (models.ple, {'num_levels': 0}, 'num_levels=0'),
    (models.ple, {'num_shared': 0}, 'num_shared=0'),
    (models.dselect_k, {'num_experts': 1}, 'num_experts=1'),
    (models.dselect_k, {'num_selected': 0}, 'num_selected=0'),
    (models.dselect_k, {'gamma': 0.0}, 'gamma=0.0'),
    (models.dselect_k, {'entropy_weight': -1.0}, 'entropy_weight=-1.0'),
    (models.dselect_k, {'dropout_rate': 1.0}, 'dropout_rate=1.0'),
  ],
)
def test_arguments_are_checked(make, kwargs, message):
  with pytest.raises(ValueError, match=message):
    make(**({'tasks': TASKS} | kwargs))
