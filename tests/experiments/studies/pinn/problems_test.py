"""Residuals vanish at solutions, and solutions are what they are said to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl
from experiments.studies.pinn import networks
from experiments.studies.pinn.problems import EQUATIONS, burgers, schroedinger

EXACT = {
  name: x.solution for name, x in EQUATIONS.items() if name != 'schroedinger'
} | {'schroedinger': schroedinger.soliton}
NAMES = sorted(EQUATIONS)


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64(True):
    yield


def in_double(params):
  return jax.tree.map(lambda x: x.astype(float), params)


def sample(equation, task, count=200, seed=0):
  term = equation.terms[equation.tasks.index(task)]
  return term, term.sample(jax.random.key(seed), count)


@pytest.mark.parametrize('name', NAMES)
def test_the_residual_vanishes_at_the_solution(name):
  equation, exact = EQUATIONS[name], EXACT[name]
  term, points = sample(equation, 'residual')
  if name == 'burgers':
    # Cole-Hopf has a root of the time, whose slope grows towards the start.
    points = points.at[:, 1].set(0.05 + 0.95 * points[:, 1])
  found = jax.jit(lambda x: term.residual(exact, x))(points)
  scale = jnp.max(jnp.abs(term.residual(lambda x: 1.01 * exact(x), points)))
  assert jnp.max(jnp.abs(found)) < 1e-8 * jnp.maximum(scale, 1)
  # It is no residual that vanishes everywhere.
  assert scale > 1e-3


@pytest.mark.parametrize(
  ('name', 'task'),
  [
    (name, task)
    for name in NAMES
    for task in EQUATIONS[name].tasks[1:]
    if (name, task) != ('schroedinger', 'boundary')
  ],
)
def test_the_other_terms_vanish_too(name, task):
  equation = EQUATIONS[name]
  term, points = sample(equation, task)
  found = term.loss(equation.solution, points)
  # What splits time rounds, and Fourier series of a kink converge slowly.
  assert found < (1e-9 if name == 'schroedinger' else 1e-24)
  assert term.loss(lambda x: 1.01 * equation.solution(x) + 0.01, points) > 1e-5


def test_the_wave_is_periodic():
  ends = jnp.array([[-5.0, 0.3], [5.0, 0.3], [-5.0, 1.2], [5.0, 1.2]])
  found = schroedinger.solution(ends)
  np.testing.assert_allclose(found[::2], found[1::2], atol=1e-12)
  term, points = sample(EQUATIONS['schroedinger'], 'boundary', 8)

  def wave(x):
    angle = jnp.pi * x[:, :1] / 5
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)

  assert term.loss(wave, points) < 1e-24
  slope = lambda x: jnp.stack([x[:, 0], 0 * x[:, 0]], axis=1)
  assert term.loss(slope, points) == pytest.approx(100)


def test_splitting_finds_the_bound_state_of_the_whole_line():
  half, modes = 20.0, 512
  x = half * (2 * np.arange(modes) / modes - 1)

  def error(time, steps):
    times = np.array([0.1, time])
    row = schroedinger.split_step(times, half=half, modes=modes, steps=steps)[1]
    wave = np.fft.ifft(row * modes)
    points = jnp.stack([x, np.full(modes, time)], axis=1)
    u, v = np.asarray(schroedinger.soliton(points)).T
    return np.max(np.abs(wave - u - 1j * v))

  assert error(0.4, schroedinger.STEPS) < 3e-6
  # Of fourth order.
  coarse, fine = error(np.pi / 2, 400), error(np.pi / 2, 800)
  assert coarse / fine == pytest.approx(16, rel=0.1)


def test_the_wave_keeps_its_norm():
  first, last = schroedinger.split_step(np.array([0, np.pi / 2]))
  assert np.linalg.norm(last) == pytest.approx(np.linalg.norm(first), rel=1e-11)


def test_the_wave_converges_with_modes():
  """Far below what a network reaches, though the start has a kink."""
  time = np.array([np.pi / 2])
  few, many = (
    schroedinger.split_step(time, modes=modes)[0] for modes in (256, 512)
  )
  kept = np.r_[few[:128], np.zeros(256), few[128:]]
  assert np.linalg.norm(kept - many) < 3e-5 * np.linalg.norm(many)


def test_quadrature_converges():
  points = jnp.asarray(EQUATIONS['burgers'].grid())
  known = burgers.solution(points)
  more = burgers.solution(points, nodes=200)
  np.testing.assert_allclose(known, more, atol=1e-7)
  # Odd, and with a shock in the middle, as steep as is published.
  slope = jax.grad(lambda x: burgers.solution(x[None])[0, 0])
  at = 0.5 + 0.001 * np.arange(20)
  steepest = min(float(slope(jnp.array([0.0, t]))[0]) for t in at)
  assert steepest == pytest.approx(-152.00516, rel=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_points_lie_where_they_should(name):
  equation = EQUATIONS[name]
  low, high = np.array(equation.low), np.array(equation.high)
  for term in equation.terms:
    points = np.asarray(term.sample(jax.random.key(3), 60))
    assert points.shape == (60, len(low))
    assert (points >= low).all()
    assert (points <= high).all()
    at_end = (points == low) | (points == high)
    if term.name == 'initial':
      assert (points[:, -1] == low[-1]).all()
    elif term.name == 'boundary' and name != 'schroedinger':
      assert at_end.any(1).all()
    else:
      assert not at_end.any()
    other = np.asarray(term.sample(jax.random.key(4), 60))
    assert (points != other).any(1).all()
  assert equation.grid().shape == (np.prod(equation.shape), len(low))


@pytest.mark.parametrize('kind', sorted(networks.NETWORKS))
def test_derivatives_of_a_network_are_those_of_reverse_mode(kind):
  equation = EQUATIONS['poisson']
  network = networks.make_network(kind, equation, (7, 5))
  points = equation.terms[0].sample(jax.random.key(0), 6)
  params = in_double(network.init(jax.random.key(1), points))
  one = lambda x: network.apply(params, x[None])[0, 0]
  hessian = jax.jit(jax.vmap(jax.hessian(one)))(points)
  found = equation.terms[0].residual(lambda x: network.apply(params, x), points)
  waves = jnp.sin(jnp.pi * points[:, 0]) * jnp.sin(2 * jnp.pi * points[:, 1])
  wanted = hessian[:, 0, 0] + hessian[:, 1, 1] + 5 * jnp.pi**2 * waves
  np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-10)


@pytest.mark.parametrize(
  ('name', 'kind'), [('burgers', 'fourier'), ('kovasznay', 'tanh')]
)
def test_every_route_gives_the_gramian_of_the_jacobian(name, kind):
  equation = EQUATIONS[name]
  network = networks.make_network(kind, equation, (6, 5))
  batch = tuple(
    term.sample(jax.random.key(i), 9 - i)
    for i, term in enumerate(equation.terms)
  )
  params = in_double(network.init(jax.random.key(1), batch[0]))

  def losses(params, batch):
    return equation.losses(lambda x: network.apply(params, x), batch)

  jacobian = jax.jit(jax.jacrev(losses))(params, batch)
  wanted = sum(
    jnp.einsum('i...,j...->ij', x, x) for x in jax.tree.leaves(jacobian)
  )
  apart = [
    lambda params, x, term=term: term.loss(
      lambda x: network.apply(params, x), x
    )
    for term in equation.terms
  ]
  for loss, layerwise in ((losses, False), (losses, True), (apart, False)):
    gramian_fn = mtl.value_and_gramian(loss, layerwise=layerwise)
    gramian = jax.jit(gramian_fn)(params, batch)[1]
    np.testing.assert_allclose(gramian, wanted, rtol=1e-10)
