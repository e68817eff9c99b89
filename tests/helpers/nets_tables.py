"""Look-ups: tokens, bytes, bags, graphs."""

import jax
import jax.numpy as jnp
import numpy as np
from nets import Net, integers, normal

IDS = integers(7, 3, 5)
BYTES = integers(256, 3, 5, dtype=np.uint8)
TABLE = normal(7, 4)
EDGES = np.array([[0, 1], [1, 2], [2, 0], [3, 1], [1, 1]])


def message_passing(p, x):
  senders, receivers = EDGES.T
  for w in (p['w0'], p['w1']):
    messages = (x @ w)[:, senders]
    x = jnp.tanh(
      jax.vmap(lambda m: jax.ops.segment_sum(m, receivers, 4))(messages)
    )
  return x


def nodes_and_edges(p, x):
  """Learned states of nodes, looked up by both ends of an edge."""
  senders, receivers = EDGES.T
  return x * p['nodes'][senders][None] + x * p['nodes'][receivers][None]


def chosen(p, x):
  """Which row is read depends on another parameter."""
  return jnp.take(p['table'], jnp.argmax(x @ p['gate'], axis=-1), axis=0)


NETS = {
  'tokens': Net(
    lambda p, x: jnp.tanh(jnp.take(p['table'], x, axis=0)) @ p['w'],
    {'table': TABLE, 'w': normal(4, 4)},
    IDS,
    ('table', 'w'),
  ),
  'bytes': Net(
    lambda p, x: jnp.take(p['table'], x, axis=0),
    {'table': normal(256, 4)},
    BYTES,
  ),
  'some_bytes': Net(
    lambda p, x: jnp.take(p['table'], x, axis=0),
    {'table': normal(255, 4)},
    BYTES,
    ('table',),
  ),
  'tied_tokens': Net(
    lambda p, x: jnp.tanh(p['table'][x] @ p['w']) @ p['table'].T,
    {'table': TABLE, 'w': normal(4, 4)},
    IDS,
    ('w',),
  ),
  'tokens_and_positions': Net(
    lambda p, x: p['table'][x] + p['places'][None],
    {'table': TABLE, 'places': normal(5, 4)},
    IDS,
    ('table',),
  ),
  'positions_by_look_up': Net(
    lambda p, x: p['table'][x] + p['places'][jnp.arange(5)][None],
    {'table': TABLE, 'places': normal(5, 4)},
    IDS,
    ('table', 'places'),
  ),
  'two_tables': Net(
    lambda p, x: p['table'][x] * p['other'][x // 2],
    {'table': TABLE, 'other': normal(4, 4)},
    IDS,
    ('table', 'other'),
  ),
  'bag_of_words': Net(
    lambda p, x: p['table'][x].sum(1) @ p['w'],
    {'table': TABLE, 'w': normal(4, 4)},
    IDS,
    ('table', 'w'),
  ),
  'one_hot': Net(
    lambda p, x: jax.nn.one_hot(x, 7) @ p['table'],
    {'table': TABLE},
    IDS,
    ('table',),
  ),
  'columns': Net(
    lambda p, x: jnp.take(p['table'], x % 4, axis=1), {'table': TABLE}, IDS
  ),
  'columns_of_the_transpose': Net(
    lambda p, x: jnp.take(p['table'].T, x % 4, axis=0),
    {'table': TABLE},
    IDS,
    ('table',),
  ),
  'entries': Net(lambda p, x: p['table'][x, x % 4], {'table': TABLE}, IDS),
  'vector': Net(lambda p, x: p['b'][x], {'b': normal(7)}, IDS, ('b',)),
  'rows_of_matrices': Net(
    lambda p, x: jnp.take(p['w'], x, axis=0),
    {'w': normal(7, 2, 3)},
    IDS,
    ('w',),
  ),
  'table_of_pairs': Net(
    lambda p, x: p['w'].reshape(4, 2, 3)[x % 4],
    {'w': normal(8, 3)},
    IDS,
    ('w',),
  ),
  'along_an_axis': Net(
    lambda p, x: jnp.take_along_axis(p['table'], x[:, :4] % 7, axis=0),
    {'table': TABLE},
    IDS,
  ),
  'windows': Net(
    lambda p, x: jax.vmap(
      lambda i: jax.lax.dynamic_slice_in_dim(p['table'], i, 2)
    )(x[:, 0] % 6),
    {'table': TABLE},
    IDS,
  ),
  'mapped_look_up': Net(
    lambda p, x: jax.vmap(jax.vmap(lambda i: p['table'][i]))(x),
    {'table': TABLE},
    IDS,
  ),
  'look_up_of_a_look_up': Net(
    lambda p, x: p['table'][p['table'].argmax(0)[x % 4]],
    {'table': TABLE},
    IDS,
    ('table',),
  ),
  'chosen_rows': Net(
    chosen,
    {'table': TABLE, 'gate': normal(4, 7)},
    normal(5, 4),
    ('table', 'gate'),
  ),
  'message_passing': Net(
    message_passing,
    {'w0': normal(4, 4), 'w1': normal(4, 4, seed=1)},
    normal(3, 4, 4),
    ('w0', 'w1'),
  ),
  'nodes_and_edges': Net(
    nodes_and_edges, {'nodes': normal(4, 4)}, normal(3, 5, 4)
  ),
  'hashed': Net(
    lambda p, x: p['table'][(x * 2654435761) % 7] + p['table'][x],
    {'table': TABLE},
    IDS.astype(np.uint32),
  ),
}
