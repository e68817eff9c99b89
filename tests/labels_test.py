import jax
import jax.numpy as jnp
import pytest

import mtljax as mtl
from mtljax import _labels

PARAMS = {
  'trunk': {'w': jnp.zeros((2, 3)), 'b': jnp.zeros(3)},
  'heads_0': {'w': jnp.zeros(3)},
  'heads_1': {'w': jnp.zeros(3)},
}
SPEC = dict(shared='trunk/.*', tasks=['heads_0/.*', 'heads_1/.*'])


def test_labels_by_path():
  labels = mtl.label_params(PARAMS, **SPEC)
  assert labels == {
    'trunk': {'w': 'shared', 'b': 'shared'},
    'heads_0': {'w': 0},
    'heads_1': {'w': 1},
  }


def test_labels_from_shapes_and_several_patterns():
  shapes = jax.eval_shape(lambda: PARAMS)
  labels = mtl.label_params(
    shapes, shared=['trunk/w', 'trunk/b'], stacked='heads_.*'
  )
  assert labels['heads_1']['w'] == 'stacked'


@pytest.mark.parametrize(
  'spec, message',
  [
    (dict(shared='trunc/.*'), "shared='trunc/.*' matches no parameter"),
    (dict(shared='trunk'), "whole paths: 'trunk/.\\*' would"),
    (dict(shared='trunk/.*'), "'heads_0/w' is matched by nothing"),
    (dict(shared='.*', tasks=['heads_0/.*']), "'heads_0/w' is matched by"),
    (dict(shared='trunk/.*', tasks=['heads_.*', 'x']), r"tasks\[1\]='x'"),
  ],
)
def test_bad_patterns(spec, message):
  with pytest.raises(ValueError, match=message):
    mtl.label_params(PARAMS, **spec)


def test_tasks_must_be_a_sequence():
  with pytest.raises(TypeError, match='pattern for each task'):
    mtl.label_params(PARAMS, shared='trunk/.*', tasks='heads_.*')


def test_prefix_and_none():
  prefix = {'trunk': 'shared', 'heads_0': 0, 'heads_1': 1}
  assert _labels.flatten_labels(prefix, PARAMS, 2) == [0, 1, 'shared', 'shared']
  assert _labels.flatten_labels(None, PARAMS) == ['shared'] * 4


@pytest.mark.parametrize('bad', [2, -1, 'trunk', True])
def test_bad_label(bad):
  prefix = {'trunk': 'shared', 'heads_0': 0, 'heads_1': bad}
  with pytest.raises(ValueError, match="'heads_1/w' is labelled"):
    _labels.flatten_labels(prefix, PARAMS, 2)


def test_labels_of_another_structure():
  with pytest.raises(ValueError, match='labels must have the structure'):
    _labels.flatten_labels({'trunk': 'shared'}, PARAMS, 2)


def test_match_params():
  marks = mtl.match_params(PARAMS, 'trunk/w')
  assert marks['trunk'] == {'w': True, 'b': False}
  with pytest.raises(ValueError, match='matches no parameter'):
    mtl.match_params(PARAMS, 'nothing')


def test_gramian_labels_must_be_shared_bools():
  flat = _labels.flatten_labels(mtl.label_params(PARAMS, **SPEC), PARAMS, 2)
  with pytest.raises(ValueError, match='shared parameters only'):
    _labels.flatten_gramian_labels(
      mtl.match_params(PARAMS, 'heads_0/w'), flat, PARAMS
    )
  with pytest.raises(ValueError, match='not a bool'):
    _labels.flatten_gramian_labels('shared', flat, PARAMS)
  with pytest.raises(ValueError, match='no leaf is selected'):
    _labels.flatten_gramian_labels(False, flat, PARAMS)
