"""What means the same has one name in all methods."""

import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import mtljax as mtl
from mtljax import _catalog

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'conventions.md'
AROUND = {
  'cr_mogm',
  'every_k',
  'freeze_after',
  'select',
  'sam',
  'samo',
  'flat_regions',
  'gradient_norm_penalty',
  'normalize_tasks',
  'per_task',
  'signsgd',
  'normalized_ascent',
  'adaptive_ascent',
}
# Names that several methods may share, each for one thing: the page has them.
SHARED = set(
  re.findall(
    r'`(\w+)`',
    ''.join(
      line.split('|')[1]
      for line in PAGE.read_text()
      .partition('## Names of numbers')[2]
      .split('\n')
      if line.startswith('| `')
    ),
  )
)
# Letters and words of papers for what has a name, and whose they still are.
OTHERS = {
  'alpha': {'fairgrad', 'gradnorm', 'gradient_norm_penalty'},  # powers, shares
  'beta': {'samo'},  # a share of two directions
  'eta': {'adaptive_ascent'},
  'momentum': {'sdmgrad', 'signsgd'},  # as optax.sgd's
  'weight_decay': {'famo'},  # as optax.adamw's
  'lambda_': {'sdmgrad'},
  'c': {'cagrad', 'conic_grad'},
  'tau': {'pcd'},
}
LETTERS = {'gamma', 'delta', 'epsilon', 'mu', 'nu', 'sigma', 'kappa', 'theta'}
SYNONYMS = {
  'lr': 'learning_rate',
  'step_size': 'learning_rate',
  'rate': 'learning_rate',
  'discount': 'decay',
  'smoothing_factor': 'decay',
  'radius': 'rho',
  'epsilon': 'eps',
  'floor': 'eps',
  'normalise': 'normalize',
  'normalization': 'normalize',
  'by': 'normalize',
  'local_norm': 'normalize',
  'temp': 'temperature',
}


def parameters():
  """Every method and wrapper with the names of its own parameters."""
  common = set(inspect.signature(mtl.aggregate).parameters)
  factories = {n: mtl.get_method(n) for n in _catalog.method_names()}
  factories |= {name: getattr(mtl, name) for name in AROUND}
  for name, factory in factories.items():
    yield name, set(inspect.signature(factory).parameters) - common


def wrong(found):
  """A sentence for each name that is not the library's."""
  said = []
  for method, names in found:
    for name in sorted(names):
      stem = name.removesuffix('_').partition('_')[0]
      if name in SYNONYMS:
        said.append(f'{method}({name}=) is called {SYNONYMS[name]} elsewhere.')
      elif name in OTHERS and method not in OTHERS[name]:
        said.append(
          f'{method}({name}=): a letter of its paper; see the names in '
          'docs/conventions.md.'
        )
      elif stem in LETTERS:
        said.append(
          f'{method}({name}=): a letter of its paper; see the names in '
          'docs/conventions.md.'
        )
  return said


def test_numbers_have_the_names_of_the_library():
  assert not wrong(parameters())


@pytest.mark.parametrize(
  'method, name, words',
  [
    ('new', 'lr', 'learning_rate'),
    ('new', 'gamma', 'conventions'),
    ('new', 'gamma_sigma', 'conventions'),
    ('new', 'beta', 'conventions'),
    ('moco', 'alpha', 'conventions'),
  ],
)
def test_a_letter_is_found(method, name, words):
  (said,) = wrong([(method, {name, 'decay'})])
  assert words in said


def test_the_page_names_what_there_is():
  names = set().union(*(names for _, names in parameters()))
  assert names >= SHARED
  assert SHARED >= {'decay', 'learning_rate', 'rho', 'normalize', 'eps'}
  assert OTHERS.keys() <= names


@pytest.mark.parametrize('name', sorted(SHARED))
def test_shared_names_are_explained_by_each_method(name):
  for method, names in parameters():
    if name in names:
      doc = inspect.getdoc(getattr(mtl, method, None) or mtl.get_method(method))
      assert re.search(rf'^ +{name}: |^ +\w+, {name}: ', doc, re.M), method


DECAYING = sorted(name for name, names in parameters() if 'decay' in names)


@pytest.mark.parametrize('name', DECAYING)
def test_decay_is_what_stays_of_the_past(name):
  def moved(decay):
    """How far the second of two steps moves what the method keeps."""
    if name == 'cr_mogm':
      tx = mtl.cr_mogm(mtl.slw(2), decay=decay)
    else:
      tx = mtl.get_method(name)(2, decay=decay)
    kept, state = [], tx.init(jnp.zeros(2))
    # Of the first two losses one of them makes weights without a past.
    for k in range(3 if name == 'relobralo' else 2):
      grads = jnp.array([[1.0, 0.5], [0.3 - k, 2.0 + k]])
      losses = jnp.array([1.0, 2.0]) + k * jnp.array([1.0, -1.5])
      _, state = tx.update(grads, state, jnp.zeros(2), losses=losses)
      inside = state[-1]
      kept.append(
        [
          x
          for path, x in jax.tree_util.tree_leaves_with_path(inside)
          if jnp.issubdtype(x.dtype, jnp.floating)
          and getattr(path[-1], 'name', '') not in ('first', 'last')
        ]
      )
    pairs = zip(*kept[-2:], strict=True)
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs)

  assert 0 < moved(0.999) < 0.9 * moved(0.1)
