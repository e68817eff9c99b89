"""The README's code runs as printed, and is two lines away from plain optax."""

import difflib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax as mtl

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'^```python\n(.*?)^```', README, re.M | re.S)


def plain(code):
  """The first block in plain optax, as the sentence below it says."""
  for number, left in (('one', 'tx'), ('two', 'grad_fn')):
    (line,) = re.findall(rf'^ *{left} = .*# line {number}$', code, re.M)
    (said,) = re.findall(rf'`({left} = [^`]+)`', README)
    indent = line[: len(line) - len(line.lstrip())]
    code = code.replace(line, indent + ' '.join(said.split()))
  # What is there for mtljax only.
  code = code.replace('import mtljax as mtl\n', '')
  return code.replace('print(losses, mtl.get_weights(opt_state))\n', '')


@pytest.fixture
def default_promotion():
  with jax.numpy_rank_promotion('allow'):  # which users have
    yield


def test_blocks_run_as_printed(default_promotion, capsys):
  namespace = {}
  for block in BLOCKS:
    exec(compile(block, 'README.md', 'exec'), namespace)
  assert len(BLOCKS) == 3
  assert capsys.readouterr().out.startswith('[')
  np.testing.assert_array_equal(namespace['state'].step, 1)
  assert namespace['route'] == 'layerwise'
  assert namespace['metrics']['losses'].shape == (2,)
  # Descended: both losses are lower than where they began.
  first = {}
  exec(BLOCKS[0].partition('for _ in')[0], first)
  before = first['task_losses'](first['params'], first['batch'])
  assert jnp.all(namespace['losses'] < before)
  assert mtl.get_weights(namespace['opt_state']).shape == (2,)


def test_two_lines_are_all_that_differs_from_plain_optax(default_promotion):
  code = plain(BLOCKS[0])
  assert 'mtl' not in code
  namespace = {}
  exec(code, namespace)
  assert jnp.isfinite(namespace['losses'])
  diff = list(
    difflib.unified_diff(code.splitlines(), BLOCKS[0].splitlines(), n=0)
  )[2:]
  removed = [line for line in diff if line.startswith('-')]
  added = [line for line in diff if line.startswith('+')]
  assert len(removed) == 2
  extra = [line for line in added if '# line' not in line]
  assert extra == [
    '+import mtljax as mtl',
    '+print(losses, mtl.get_weights(opt_state))',
  ]


def test_citation_is_of_this_version():
  lines = (ROOT / 'CITATION.cff').read_text().splitlines()
  assert f'version: {mtl.__version__}' in lines
  assert 'cff-version: 1.2.0' in lines
