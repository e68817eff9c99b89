"""CAGrad's problem for two rows, in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def pair_in_ball(
  unit: jax.Array,
  norms: jax.Array,
  used: jax.Array,
  mean_norm: jax.Array,
  radius: jax.Array,
) -> jax.Array:
  r"""The part of `ball_max_min` that takes a search for more than two rows.

  With :math:`e = (g_1 - g_2) / \ell`, :math:`\ell = \|g_1 - g_2\|`, a point of
  the segment between the rows is :math:`h + s e`, where :math:`h` is the point
  of their line that is nearest to 0. The dual
  :math:`g_0^\top (h + s e) + r \sqrt{\|h\|^2 + s^2}`, :math:`r = c \|g_0\|`,
  is convex in :math:`s` and has slope 0 where
  :math:`s / \sqrt{\|h\|^2 + s^2} = q := -e^\top g_0 / r`, so that

  .. math:: s = \|h\| q / \sqrt{1 - q^2},

  cut off at the ends of the segment; for :math:`|q| \ge 1` it is the end with
  the shorter row. As :math:`g_0` is half way between the rows,
  :math:`e^\top g_0 = (\|g_1\|^2 - \|g_2\|^2) / 2 \ell`. All is in units of the
  longer row, and of the shorter one once more, so that a ratio of 1e-20 does
  not underflow. Rows that are nearly parallel get the same ridge as in the
  search, `mtljax.solvers._qp.ridge`.

  Args:
    unit: see `row_normalize`, shape ``(2, 2)``.
    norms: the lengths of the rows, shape ``(2,)``.
    used: true for the rows that take part, shape ``(2,)``.
    mean_norm: :math:`\|g_0\|` in units of the longer row.
    radius: :math:`c`.

  Returns:
    ``x``, shape ``(2,)``: the step from :math:`g_0` in terms of unit rows and
    in units of :math:`(1 + c) \|g_0\|`.
  """
  eps = jnp.finfo(unit.dtype).eps
  total = 1 + radius
  ball = radius / total
  cosine = jnp.clip(unit[0, 1], -1, 1)
  sine_squared = (1 - cosine) * (1 + cosine)
  ridge = jnp.where(sine_squared > jnp.sqrt(eps), 0, 2 * eps)
  square = 1 + ridge  # of the length of a unit row
  distance = jnp.sqrt(sine_squared + ridge * (2 + ridge))

  first_is_long = norms[0] >= norms[1]
  long, short = jnp.max(norms), jnp.min(norms)
  ratio = short / jnp.where(long > 0, long, 1)
  # Of g_0 along e, times l; what follows of the slope's equation, 1 - q^2.
  along = (1 - ratio) * (1 + ratio) / 2
  ridged = jnp.square(ratio) * sine_squared
  ridged += jnp.square(mean_norm) * ridge * (1 + jnp.square(ratio))
  rest = jnp.square(ball) * ridged
  rest -= jnp.square(along) * (1 - radius) / total
  # From here on all lengths are times l, in units of the shorter row.
  inside = rest > 0
  point = -along / total * distance / jnp.sqrt(jnp.where(inside, rest, 1))
  long_part = ratio - cosine + ratio * ridge + point
  inside = inside & (long_part > 0)
  short_part = 1 - ratio * cosine + ridge - ratio * point
  width = jnp.square(1 - ratio) + 2 * ratio * (1 - cosine)
  width = jnp.sqrt(width + ridge * (1 + jnp.square(ratio)))
  size = width * jnp.sqrt(jnp.square(distance) + jnp.square(point))
  size = jnp.where(inside, size, jnp.sqrt(square))
  long_part = ball * jnp.where(inside, long_part, 0) / size
  short_part = ball * jnp.where(inside, short_part, 1) / size
  x = jnp.where(
    first_is_long,
    jnp.stack([long_part, short_part]),
    jnp.stack([short_part, long_part]),
  )
  return jnp.where(used, jnp.where(jnp.all(used), x, ball), 0)
