"""Agreement of the projecting and robust methods with TorchJD 0.18."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import weightings
from mtljax._types import TaskStats
from mtljax.weightings import _gradvac

SIZE = 10
LANES = 64


def cases_of(golden, key, families=None, leave_out=()):
  """Stable cases that have ``key``: name, Jacobian, and the value of it."""
  unstable = set(golden['__unstable__'].tolist())
  out = []
  for full, jacobian in golden.items():
    name = full[:-2]
    if not full.endswith('/J') or len(jacobian) > SIZE:
      continue
    if f'{name}/{key}' not in golden or f'{name}/{key}' in unstable:
      continue
    if families and not name.startswith(families):
      continue
    if leave_out and name.startswith(leave_out):
      continue
    out.append((name, jacobian, golden[f'{name}/{key}']))
  return out


def padded(vectors, fill=0.0):
  """Vectors of unlike length as rows of one array."""
  out = np.full((LANES, SIZE), fill)
  for row, vector in zip(out, vectors, strict=False):
    row[: len(vector)] = vector
  return out


def weights_of(factory, jacobians, *args):
  """All weights, solved in one batch of padded Gramians.

  Args:
    factory: from the arguments of one lane to a weighting.
    jacobians: of up to `SIZE` rows.
    *args: arrays with a lane on axis 0.
  """
  gramians = np.full((LANES, SIZE, SIZE), np.nan)
  masks = np.zeros((LANES, SIZE), bool)
  for i, jacobian in enumerate(jacobians):
    rows = len(jacobian)
    gramians[i, :rows, :rows] = jacobian @ jacobian.T
    masks[i, :rows] = True

  def one(gramian, mask, *args):
    weighting = factory(*args)
    stats = TaskStats(gramian=gramian, mask=mask)
    return weighting.update(stats, weighting.init(SIZE))[0]

  weights = np.asarray(jax.jit(jax.vmap(one))(gramians, masks, *args))
  assert np.all(weights[~masks] == 0)
  return [w[: len(j)] for w, j in zip(weights, jacobians, strict=False)]


def assert_updates_agree(weights, cases, tol):
  """Off by at most ``tol`` times the longest row."""
  for w, (name, jacobian, expected) in zip(weights, cases, strict=True):
    longest = np.linalg.norm(jacobian, axis=1).max()
    off = np.linalg.norm(w @ jacobian - expected)
    assert off <= tol * longest, (name, off / max(longest, 1e-300))


WELL_SCALED = ('normal', 'aligned', 'conflict', 'ortho', 'huge')


@pytest.mark.parametrize('name', ['UPGrad', 'DualProj'])
def test_projections_are_exact(golden, x64, name):
  factory = getattr(
    weightings, {'UPGrad': 'upgrad', 'DualProj': 'dual_proj'}[name]
  )
  cases = cases_of(golden, f'{name}.exact')
  assert len(cases) > 40
  weights = weights_of(lambda: factory(), [j for _, j, _ in cases])
  # The reference adds 1e-10 to the diagonal of the unit Gramian.
  assert_updates_agree(weights, cases, 1e-4)
  well = [
    (w, case)
    for w, case in zip(weights, cases, strict=True)
    if case[0].startswith(WELL_SCALED)
  ]
  assert len(well) > 15
  assert_updates_agree(*zip(*well, strict=True), 1e-8)
  # TorchJD's own: 1e-8 or 1e-4 of the trace on the diagonal.
  for key, tol in ((f'{name}(reg_eps=1e-8)', 1e-6), (name, 5e-3)):
    theirs = [
      (w, (case, jacobian, golden[f'{case}/{key}']))
      for w, (case, jacobian, _) in well
    ]
    assert_updates_agree(*zip(*theirs, strict=True), tol)


@pytest.mark.parametrize('name', ['UPGrad', 'DualProj'])
def test_projections_with_a_preference(golden, x64, name):
  """TorchJD regularises by 1e-4 of the trace: only near it is it the same."""
  factory = getattr(
    weightings, {'UPGrad': 'upgrad', 'DualProj': 'dual_proj'}[name]
  )
  cases = cases_of(golden, f'{name}(pref)', ('normal', 'aligned', 'ortho'))
  assert len(cases) > 10
  prefs = padded([golden[f'{case}/pref'] for case, _, _ in cases], 1.0)
  weights = weights_of(
    lambda p: factory(preference=p), [j for _, j, _ in cases], prefs
  )
  assert_updates_agree(weights, cases, 5e-3)


def test_projections_protect_short_rows(golden, x64):
  """Where TorchJD goes against a task because its gradient is short."""
  cases = cases_of(golden, 'UPGrad', ('confmags', 'mags'))
  weights = weights_of(lambda: weightings.upgrad(), [j for _, j, _ in cases])
  worst, theirs = 1.0, 1.0
  for w, (_, jacobian, expected) in zip(weights, cases, strict=True):
    norms = np.linalg.norm(jacobian, axis=1)
    for update in (w @ jacobian, expected):
      cosine = np.min(jacobian @ update / norms) / np.linalg.norm(update)
      if update is expected:
        theirs = min(theirs, cosine)
      else:
        worst = min(worst, cosine)
  assert worst > -1e-6
  assert theirs < -0.5


@pytest.mark.parametrize(
  'key, mode', [('', 'min'), ('median', 'median'), ('rmse', 'mean')]
)
def test_aligned_mtl(golden, x64, key, mode):
  name = f'AlignedMTL(scale_mode={key})' if key else 'AlignedMTL'
  # A cut-off decides on the rank: the reference's is on another matrix.
  cases = cases_of(golden, name, leave_out=('tiny',))
  assert len(cases) > 40
  share = padded([np.full(len(j), 1 / len(j)) for _, j, _ in cases], 1.0)
  weights = weights_of(
    lambda p: weightings.aligned_mtl(preference=p, scale_mode=mode),
    [j for _, j, _ in cases],
    share,
  )
  for w, (case, jacobian, expected) in zip(weights, cases, strict=True):
    tol = 1e-4 if case.startswith('mags_T10') else 1e-7
    size = max(np.linalg.norm(expected), 1e-9)
    off = np.linalg.norm(w @ jacobian - expected)
    assert off <= tol * size, (case, off / size)


def test_aligned_mtl_with_a_preference(golden, x64):
  cases = cases_of(golden, 'AlignedMTL(pref)', WELL_SCALED)
  prefs = padded([golden[f'{case}/pref'] for case, _, _ in cases], 1.0)
  weights = weights_of(
    lambda p: weightings.aligned_mtl(preference=p),
    [j for _, j, _ in cases],
    prefs,
  )
  assert_updates_agree(weights, cases, 1e-9)


@pytest.mark.parametrize('key', ['ConFIG', 'ConFIG(pref)', 'ConFIG.gramian'])
def test_conflict_free(golden, x64, key):
  cases = cases_of(golden, key)
  assert len(cases) > 30
  prefs = [
    golden[f'{case}/pref'] if 'pref' in key else np.ones(len(j))
    for case, j, _ in cases
  ]
  weights = weights_of(
    lambda p: weightings.conflict_free(preference=p),
    [j for _, j, _ in cases],
    padded(prefs, 1.0),
  )
  assert_updates_agree(weights, cases, 1e-6)


@pytest.mark.parametrize(
  'key, byzantine, selected',
  [
    ('Krum(n_byzantine=0)', 0, 1),
    ('Krum(n_byzantine=1)', 1, 1),
    ('Krum(n_byzantine=1,n_selected=3)', 1, 3),
    ('Krum(n_byzantine=2,n_selected=2)', 2, 2),
  ],
)
def test_krum_with_plain_distances(golden, x64, key, byzantine, selected):
  # Equal rows tie.
  cases = cases_of(golden, f'{key}:w', leave_out=('dup', 'allzero'))
  assert len(cases) > 10
  weights = weights_of(
    lambda: weightings.krum(
      num_byzantine=byzantine, num_selected=selected, squared=False
    ),
    [j for _, j, _ in cases],
  )
  for w, (name, _, expected) in zip(weights, cases, strict=True):
    np.testing.assert_allclose(w, expected, err_msg=name)


@pytest.mark.parametrize('key, tau', [('', 0.02), ('0.3', 0.3), ('0', 0.0)])
def test_pcd(golden, x64, key, tau):
  name = f'PCD(tau={key})' if key else 'PCD'
  cases = cases_of(golden, name)
  assert len(cases) > 40
  weights = weights_of(
    lambda: weightings.pcd(tau=tau), [j for _, j, _ in cases]
  )
  for w, (case, jacobian, expected) in zip(weights, cases, strict=True):
    first = np.linalg.norm(jacobian[0])
    off = np.linalg.norm(w @ jacobian - expected)
    assert off <= 1e-5 * first, (case, off / max(first, 1e-300))


def sequences(golden):
  names = sorted({k.split('/')[0] for k in golden if k.startswith('seq_')})
  assert len(names) >= 2
  return names


@pytest.mark.parametrize(
  'key, options',
  [('PCD', {}), ('PCD(tau=0.3,beta=0.5)', {'tau': 0.3, 'decay': 0.5})],
)
def test_pcd_over_steps(golden, x64, key, options):
  weighting = weightings.pcd(**options)
  for case in sequences(golden):
    state = weighting.init(len(golden[f'{case}/J0']))
    for k in range(4):
      jacobian = golden[f'{case}/J{k}']
      stats = TaskStats(gramian=jnp.asarray(jacobian @ jacobian.T))
      weights, state = weighting.update(stats, state)
      np.testing.assert_allclose(
        weights, golden[f'{case}/{key}@{k}:w'], rtol=1e-6, atol=1e-9
      )


def orders_of(kind):
  order = np.arange(SIZE) if kind == 'identity' else np.arange(SIZE)[::-1]
  return jnp.asarray(np.broadcast_to(order, (SIZE, SIZE)))


@pytest.mark.parametrize('kind', ['identity', 'reversed'])
def test_gradvac_in_a_given_order(golden, x64, kind):
  cases = cases_of(golden, f'GradVac@{kind}', leave_out=('nearzero',))
  # Its eps of 1e-8 is no part of the method and hides a row of 1e-9. Targets
  # start at 0, which is PCGrad.
  cases += cases_of(golden, f'PCGrad@{kind}', ('nearzero',))
  assert len(cases) > 40
  for name, jacobian, expected in cases:
    rows = len(jacobian)
    gramian = np.full((SIZE, SIZE), np.nan)
    gramian[:rows, :rows] = jacobian @ jacobian.T
    w, _ = _gradvac._weights(
      jnp.asarray(gramian),
      jnp.arange(SIZE) < rows,
      jnp.zeros((SIZE, SIZE)),
      jnp.asarray(0.5),
      orders_of(kind),
    )
    longest = np.linalg.norm(jacobian, axis=1).max()
    np.testing.assert_allclose(
      w[:rows] @ jacobian, expected, atol=1e-5 * longest, err_msg=name
    )


@pytest.mark.parametrize(
  'key, beta', [('GradVac@identity', 0.5), ('GradVac(beta=0.1)@identity', 0.1)]
)
def test_gradvac_over_steps(golden, x64, key, beta):
  for case in sequences(golden):
    rows = len(golden[f'{case}/J0'])
    targets = jnp.zeros((SIZE, SIZE))
    for k in range(4):
      jacobian = golden[f'{case}/J{k}']
      gramian = np.full((SIZE, SIZE), np.nan)
      gramian[:rows, :rows] = jacobian @ jacobian.T
      weights, targets = _gradvac._weights(
        jnp.asarray(gramian),
        jnp.arange(SIZE) < rows,
        targets,
        jnp.asarray(beta),
        orders_of('identity'),
      )
      np.testing.assert_allclose(
        weights[:rows], golden[f'{case}/{key}@{k}:w'], rtol=1e-6
      )
      np.testing.assert_allclose(
        targets[:rows, :rows], golden[f'{case}/{key}@{k}:phi'], atol=1e-7
      )
