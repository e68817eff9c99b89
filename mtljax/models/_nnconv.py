"""The network of the QM9 comparisons: edge-conditioned convolutions, Set2Set.

A message to atom i is ``sum_j A(e_ij) x_j``, where a small network makes the
matrix ``A(e) = sum_k h_k(e) W_k + C`` of an edge. Formed for every edge, these
matrices are most of the time and the memory; but the sums can be exchanged::

  sum_j A(e_ij) x_j = sum_k W_k (sum_j h_k(e_ij) x_j) + C sum_j x_j

which is the same, and two matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mtljax import _validate
from mtljax.models import _base, _molecules
from mtljax.models._resnet import LinearHead

FORMS = ('reordered', 'matrices')
#: What sums over atoms are divided by, in the extensive form.
_SCALE = 10.0
_LARGEST_NUMBER = 9  # fluorine


class NNConv(nn.Module):
  """A message to every atom from all others, by the matrices of the edges.

  Args:
    features: units of the messages, O.
    form: ``'reordered'``, or ``'matrices'``, which forms one an edge.
  """

  features: int
  form: str = 'reordered'

  @nn.compact
  def __call__(
    self, x: jax.Array, hidden: jax.Array, pairs: jax.Array
  ) -> jax.Array:
    """Sums ``A(e_ij) x_j`` over the other atoms.

    Args:
      x: the atoms' states, (B, A, D).
      hidden: h of the edges, (B, A, A, K), 0 where there is none.
      pairs: 1 where there is an edge, else 0, (B, A, A).

    Returns:
      The sums, (B, A, O).
    """
    inner, outer = x.shape[-1], self.features
    kernel = self.param(
      'kernel',
      nn.initializers.lecun_normal(),
      (hidden.shape[-1], inner * outer),
      x.dtype,
    )
    bias = self.param('bias', nn.initializers.zeros, (inner * outer,), x.dtype)
    if self.form == 'matrices':
      matrices = hidden @ kernel + bias.reshape(1, 1, 1, -1)
      matrices = matrices.reshape(*pairs.shape, inner, outer)
      matrices *= pairs[..., None, None]
      return jnp.einsum('bijdo,bjd->bio', matrices, x)
    kernel = kernel.reshape(-1, inner, outer)
    sums = jnp.einsum('bijk,bjd->bikd', hidden, x)
    messages = jnp.einsum('bikd,kdo->bio', sums, kernel)
    return messages + pairs @ x @ bias.reshape(inner, outer)


class NNConvTrunk(nn.Module):
  """See `nnconv`, whose arguments these are.

  Args:
    width: units of an atom's state, and of the features.
    edge_width: units of the edge network's hidden layer.
    num_rounds: rounds of messages, with the same parameters.
    num_readout_steps: steps of Set2Set.
    num_gaussians: of the distance; 0: the distance itself.
    extensive: sums instead of means.
    form: of the messages.
  """

  width: int = 64
  edge_width: int = 128
  num_rounds: int = 3
  num_readout_steps: int = 3
  num_gaussians: int = 0
  extensive: bool = False
  form: str = 'reordered'

  @nn.compact
  def __call__(
    self, x: _molecules.Molecules, *, train: bool = False
  ) -> jax.Array:
    """Maps molecules to features (B, width)."""
    del train
    found = _molecules.pairs_of(x)
    dtype = found.distances.dtype
    nodes, edges = self._inputs(x, found, dtype)
    pairs = found.pairs.astype(dtype)
    hidden = nn.relu(nn.Dense(self.edge_width, name='edge')(edges))
    hidden = hidden * pairs[..., None]
    norm = _SCALE
    if not self.extensive:
      norm = jnp.maximum(pairs.sum(-1, keepdims=True), 1)
    conv = NNConv(self.width, self.form, name='conv')
    root = nn.Dense(self.width, name='root')
    update = _GRU(self.width, name='gru')
    state = nn.relu(nn.Dense(self.width, name='nodes')(nodes))
    for _ in range(self.num_rounds):
      messages = conv(state, hidden, pairs) / norm
      state = update(nn.relu(messages + root(state)), state)
    pooled = _Set2Set(self.width, self.num_readout_steps, name='set2set')(
      state, found.atoms
    )
    if self.extensive:
      atoms = found.atoms[..., None].astype(dtype)
      sums = jnp.sum(state * atoms, 1) / _SCALE
      pooled = jnp.concatenate([pooled, sums], -1)
    return nn.relu(nn.Dense(self.width, name='out')(pooled))

  def _inputs(self, x, found, dtype):
    """The features of atoms and edges: those given, or the reduced set."""
    nodes, edges = x.get('nodes'), x.get('edges')
    if nodes is None:
      numbers = x['numbers']
      scale = _LARGEST_NUMBER if self.num_gaussians else 1
      number = numbers[..., None].astype(dtype) / scale
      nodes = jnp.concatenate([_molecules.one_hot(numbers, dtype), number], -1)
    if edges is None:
      edges = found.distances[..., None]
      if self.num_gaussians:
        edges = _molecules.gaussians(
          found.distances, 0.5, 6.0, self.num_gaussians, 2.0
        )
    return nodes, edges


class _GRU(nn.Module):
  """A gated recurrent unit with both biases, as cuDNN has them."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array, state: jax.Array) -> jax.Array:
    gates = nn.Dense(3 * self.width, name='input')(x)
    own = nn.Dense(3 * self.width, name='state')(state)
    r, z, n = jnp.split(gates, 3, -1)
    own_r, own_z, own_n = jnp.split(own, 3, -1)
    reset, keep = nn.sigmoid(r + own_r), nn.sigmoid(z + own_z)
    return keep * state + (1 - keep) * jnp.tanh(n + reset * own_n)


class _Set2Set(nn.Module):
  """What an LSTM reads of a set: softmax means, asked for step by step."""

  width: int
  num_steps: int

  @nn.compact
  def __call__(self, x: jax.Array, atoms: jax.Array) -> jax.Array:
    """Maps states (B, A, width) to (B, 2 width)."""
    read = jnp.zeros((x.shape[0], 2 * self.width), x.dtype)
    state = cell = read[:, : self.width]
    of_input = nn.Dense(4 * self.width, name='input')
    of_state = nn.Dense(4 * self.width, name='state')
    for _ in range(self.num_steps):
      gates = jnp.split(of_input(read) + of_state(state), 4, -1)
      take, keep, out = (nn.sigmoid(gates[i]) for i in (0, 1, 3))
      cell = keep * cell + take * jnp.tanh(gates[2])
      state = out * jnp.tanh(cell)
      scores = jnp.einsum('bad,bd->ba', x, state)
      scores = jnp.where(atoms, scores, jnp.finfo(x.dtype).min)
      # A molecule without atoms reads nothing.
      shares = jnp.where(atoms, nn.softmax(scores), 0)
      read = jnp.concatenate([state, jnp.einsum('ba,bad->bd', shares, x)], -1)
    return read


def nnconv(
  tasks: Sequence[str],
  num_outputs: int = 1,
  *,
  width: int = 64,
  edge_width: int = 128,
  num_rounds: int = 3,
  num_readout_steps: int = 3,
  num_gaussians: int = 0,
  extensive: bool = False,
  form: str = 'reordered',
) -> _base.MultiTaskModel:
  r"""Builds the message passing network of the multi-task QM9 comparisons.

  Trunk, shared by all tasks: a dense layer of the atoms' features, then rounds
  of messages with the same parameters, each ending in a gated recurrent unit,

  .. math::
    x_i \leftarrow \mathrm{GRU}\bigl(\mathrm{ReLU}(\mathrm{mean}_{j \ne i}
      A(e_{ij}) x_j + R x_i + b), x_i\bigr),

  then Set2Set over the atoms and a dense layer. Heads are linear. With the 11
  features of an atom and 5 of an edge of the comparisons it has 616,960 shared
  parameters, and 65 a task. Graphs are complete, molecules padded to one size:
  one program for all batches, and no graph library.

  A batch is a mapping with ``numbers``, shape ``(B, A)``, atomic numbers, 0
  where there is no atom; ``positions``, shape ``(B, A, 3)``, in Angstrom, whose
  dtype is the network's; and, if there are any, ``nodes`` (B, A, F) and
  ``edges`` (B, A, A, E), features of atoms and of pairs. Without them a
  *reduced* set is taken, since bond orders and hybridisation need a chemistry
  library: which of H, C, N, O, F an atom is, its number, and the distance.

  Means make the features intensive, while many targets grow with the molecule;
  ``extensive=True`` is a variant of our own, which learns these much faster:
  sums over atoms, divided by 10, instead of means, and the sum of the states
  beside what Set2Set reads.

  Args:
    tasks: the names of the tasks.
    num_outputs: of every head.
    width: units of an atom's state.
    edge_width: units of the edge network's hidden layer.
    num_rounds: of messages.
    num_readout_steps: of Set2Set.
    num_gaussians: describe a distance by so many Gaussians from 0.5 to 6
      Angstrom, and divide atomic numbers by 9; 0: plain numbers.
    extensive: sums instead of means.
    form: ``'reordered'``, or ``'matrices'``, which forms a matrix an edge:
      equal, and slower by more than ten times.

  Returns:
    The model.

  Raises:
    ValueError: if a size is below 1, or the form unknown.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> water = {
    ...   'numbers': jnp.array([[8, 1, 1, 0]]),
    ...   'positions': jnp.array(
    ...     [[[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0], [0, 0, 0]]]
    ...   ),
    ... }
    >>> model = nnconv(('mu', 'alpha'), width=8, edge_width=8)
    >>> params, model_state = model.init(jax.random.key(0), water)
    >>> [y.shape for y in model.apply(params, model_state, water)]
    [(1, 1), (1, 1)]

  References:
    Gilmer et al., Neural Message Passing for Quantum Chemistry, 2017,
    https://arxiv.org/abs/1704.01212

    Navon et al., Multi-Task Learning as a Bargaining Game, 2022,
    https://arxiv.org/abs/2202.01017
  """
  for name, value in (
    ('num_outputs', num_outputs),
    ('width', width),
    ('edge_width', edge_width),
    ('num_rounds', num_rounds),
    ('num_readout_steps', num_readout_steps),
  ):
    _validate.integer(name, value, 1)
  _validate.integer('num_gaussians', num_gaussians, 0)
  _validate.flag('extensive', extensive)
  _validate.one_of('form', form, FORMS)
  trunk = NNConvTrunk(
    width,
    edge_width,
    num_rounds,
    num_readout_steps,
    num_gaussians,
    extensive,
    form,
  )
  return _base.with_same_heads(trunk, LinearHead(num_outputs), tasks)
