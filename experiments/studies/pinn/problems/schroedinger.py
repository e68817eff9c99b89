"""The nonlinear Schroedinger equation: a bound state that breathes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.pinn.problems import equation

LOW, HIGH = (-5.0, 0.0), (5.0, np.pi / 2)
MODES = 512
STEPS = 1200  # over the whole time
# Of the fourth-order composition of three steps (Yoshida, 1990).
OUTER = 1 / (2 - 2 ** (1 / 3))
PARTS = OUTER, 1 - 2 * OUTER, OUTER
HALF = 5.0


def start(x: np.ndarray) -> np.ndarray:
  """The wave at the first moment, 2 sech x."""
  return 2 / np.cosh(x)


def split_step(
  times: np.ndarray,
  *,
  half: float = HALF,
  modes: int = MODES,
  steps: int = STEPS,
) -> np.ndarray:
  """The Fourier coefficients of the periodic wave, by splitting.

  A step is three of Strang's, composed to the fourth order.

  Args:
    times: ascending, from 0 on, shape ``(M,)``.
    half: half the period.
    modes: of the Fourier series.
    steps: of the splitting over a time of pi / 2.

  Returns:
    Shape ``(M, modes)``, as `numpy.fft.fft` orders them, of ``x + half``.
  """
  wave = start(half * (2 * np.arange(modes) / modes - 1)).astype(complex)
  square = frequencies(half, modes) ** 2
  now, found = 0.0, []
  for time in times:
    count = int(np.ceil((time - now) * steps / (np.pi / 2) - 1e-9))
    step = (time - now) / max(count, 1)
    parts = [
      (part * step, np.exp(-0.5j * square * part * step)) for part in PARTS
    ]
    for part, linear in parts * count:
      wave = wave * np.exp(0.5j * part * np.abs(wave) ** 2)
      wave = np.fft.ifft(linear * np.fft.fft(wave))
      wave = wave * np.exp(0.5j * part * np.abs(wave) ** 2)
    now = time
    found.append(np.fft.fft(wave) / modes)
  return np.stack(found)


def frequencies(half: float, modes: int) -> np.ndarray:
  """Those of the coefficients."""
  return np.fft.fftfreq(modes, 1 / modes) * np.pi / half


def solution(points: jax.Array) -> jax.Array:
  """The wave's real and imaginary part, shape ``(N, 2)``."""
  points = np.asarray(points, np.float64)
  times, which = np.unique(points[:, 1], return_inverse=True)
  coefficients = split_step(times)
  wave = np.empty(len(points), complex)
  places = frequencies(HALF, MODES)
  for i, row in enumerate(coefficients):
    here = which == i
    x = points[here, 0] + HALF
    wave[here] = np.exp(1j * x[:, None] * places[None]) @ row
  return jnp.stack([wave.real, wave.imag], axis=1)


def soliton(points: jax.Array) -> jax.Array:
  """The wave on the whole line, in closed form: a bound state of two."""
  x, t = points[:, 0], points[:, 1]
  above = jnp.cosh(3 * x) + 3 * jnp.exp(4j * t) * jnp.cosh(x)
  below = jnp.cosh(4 * x) + 4 * jnp.cosh(2 * x) + 3 * jnp.cos(4 * t)
  wave = 4 * jnp.exp(0.5j * t) * above / below
  return jnp.stack([wave.real, wave.imag], axis=1)


def residual(field: equation.Field, points: jax.Array) -> jax.Array:
  """I h_t + h_xx / 2 + |h|^2 h, its real and imaginary part."""
  h, _, h_xx = equation.derivatives(field, points, 0)
  h_t = equation.derivative(field, points, 1)
  turned = jnp.stack([-h_t[:, 1], h_t[:, 0]], axis=1)
  return turned + h_xx / 2 + jnp.sum(h**2, axis=1, keepdims=True) * h


def periodic(field: equation.Field, points: jax.Array) -> jax.Array:
  """Values and slopes at the left end less those at the right one."""
  left, right = (
    jnp.where(jnp.arange(2)[None] == 0, end, points)
    for end in (LOW[0], HIGH[0])
  )

  def both(at):
    unit = jnp.broadcast_to(jnp.array([1, 0], at.dtype), at.shape)
    return jnp.concatenate(jax.jvp(field, (at,), (unit,)), axis=1)

  return both(left) - both(right)


def initial(field: equation.Field, points: jax.Array) -> jax.Array:
  """What the wave at the first moment is off."""
  wanted = 2 / jnp.cosh(points[:, 0])
  return field(points) - jnp.stack([wanted, jnp.zeros_like(wanted)], axis=1)


SCHROEDINGER = equation.Equation(
  name='schroedinger',
  title=(
    'Schrödinger, i h_t + h_xx / 2 + |h|² h = 0, periodic, h(x, 0) = 2 sech x'
  ),
  coordinates=('x', 't'),
  low=LOW,
  high=HIGH,
  outputs=('u', 'v'),
  terms=(
    equation.Term(
      name='residual', sample=equation.inside(LOW, HIGH), residual=residual
    ),
    equation.Term(
      name='boundary', sample=equation.inside(LOW, HIGH), residual=periodic
    ),
    equation.Term(
      name='initial',
      sample=equation.at_start(LOW, HIGH),
      residual=initial,
    ),
  ),
  solution=solution,
  shape=(101, 41),
  shown=('t', 'x'),
)
