"""What a traced program holds, on small programs whose answer is known."""

import jax
import jax.numpy as jnp

from mtljax.training.step import _liveness

N = 16
ARRAY = 4 * N * N


def arrays(fun, *shapes, backend='cpu'):
  """Bytes held beside arguments and results, in arrays of N x N."""
  given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  program = jax.make_jaxpr(fun)(*given).jaxpr
  return _liveness.peak_bytes(program, backend) / ARRAY


def chain(x):
  for _ in range(4):
    x = x @ x
  return jnp.sum(x)


def test_a_chain_holds_two_arrays():
  assert arrays(chain, (N, N)) == 2


def test_chains_in_line_are_on_their_way_at_once_on_cpu():
  fun = lambda *xs: [chain(x) for x in xs]
  shapes = [(N, N)] * 4
  assert arrays(fun, *shapes) >= 5
  assert arrays(fun, *shapes, backend='gpu') < 3


def test_the_backend_holds_inside_of_loops():
  body = lambda total, xs: (total + sum(chain(x) for x in xs), None)
  fun = lambda *xs: jax.lax.scan(body, 0.0, xs)[0]
  shapes = [(2, N, N)] * 4
  assert arrays(fun, *shapes) > arrays(fun, *shapes, backend='gpu') + 2


def test_a_product_copies_an_operand_whose_axes_lie_apart():
  """Heads between the places and what is summed, as attention has them."""
  fun = lambda x, y: jnp.sum(jnp.einsum('qhd,khd->hqk', x, y))
  given = (8, 2, N), (8, 2, N)
  held = 2 * 8 * 8 * 4 / ARRAY  # the product
  assert arrays(fun, *given) == held + 2 * (8 * 2 * N * 4 / ARRAY)
  canonical = lambda x, y: jnp.sum(jnp.einsum('hqd,hkd->hqk', x, y))
  assert arrays(canonical, (2, 8, N), (2, 8, N)) == held


def test_an_outer_product_is_fused():
  fun = lambda x, y: jnp.sum(jnp.einsum('bi,bj->bij', x, y), (1, 2))
  assert arrays(fun, (4, N), (4, N)) == 0


def test_zeros_that_are_written_to_are_held_from_the_start_on_cpu():
  def fun(table, x, i):
    x = chain(x)
    return jnp.sum(jnp.zeros((N, N)).at[i].add(x) @ table)

  shapes = (N, N), (N, N), (4,)
  given = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes[:2]]
  i = jax.ShapeDtypeStruct(shapes[2], jnp.int32)
  program = jax.make_jaxpr(fun)(*given, i).jaxpr
  on_cpu, elsewhere = (
    _liveness.peak_bytes(program, b) / ARRAY for b in ('cpu', 'gpu')
  )
  assert on_cpu >= 3 > elsewhere


def test_a_part_of_a_stack_is_what_was_stacked():
  def fun(x, y):
    x, y = x @ x, y @ y
    stack = jnp.stack([x, y])
    return jnp.sum(x @ stack[0]) + jnp.sum(stack[1] @ y)

  # Both, their stack, and a product: no copies of the parts.
  assert arrays(fun, (N, N), (N, N)) == 5
