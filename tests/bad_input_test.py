"""What every factory says about an argument, or statistics, that it cannot use.

A method joins with its rows in `ARGUMENTS`: a case where it is refused when
built, and the words that the message must have.
"""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from battery import FIRST, METHODS

import mtljax as mtl

NAN = float('nan')
# name, arguments, words of the message: the argument and its value
ARGUMENTS = [
  ('aligned_mtl', {'scale_mode': 'max'}, "scale_mode='max'"),
  ('aligned_mtl', {'preference': [1.0, -1.0]}, 'preference='),
  ('aligned_mtl', {'preference': [1.0]}, 'preference'),
  ('balancer', {'decay': 1.0}, 'decay=1.0'),
  ('balancer', {'total_norm': 0.0}, 'total_norm=0.0'),
  ('balancer', {'preference': [1.0]}, 'preference'),
  ('bmtl', {'temperature': 0.0}, 'temperature=0.0'),
  ('bmtl', {'temperature': -1.0}, 'temperature=-1.0'),
  ('cagrad', {'c': -0.1}, 'c=-0.1'),
  ('cagrad', {'c': NAN}, 'c=nan'),
  ('cagrad', {'rescale': 'squared'}, "rescale='squared'"),
  ('cagrad', {'subset': 0}, 'subset=0'),
  ('cagrad', {'subset': 4}, 'subset=4'),
  ('conflict_free', {'preference': [1.0, 1.0, 1.0]}, 'preference'),
  ('db_mtl', {'decay': 1.0}, 'decay=1.0'),
  ('db_mtl', {'decay_power': -1.0}, 'decay_power=-1.0'),
  ('conic_grad', {'c': -0.1}, 'c=-0.1'),
  ('conic_grad', {'c': 1.5}, 'c=1.5'),
  ('cosmos', {'cosine_weight': -1.0}, 'cosine_weight=-1.0'),
  ('cosmos', {'preference': [1.0]}, 'preference'),
  ('db_mtl', {'eps': -1.0}, 'eps=-1.0'),
  ('dual_proj', {'preference': [1.0, -1.0]}, 'preference='),
  ('dwa', {'temperature': 0.0}, 'temperature=0.0'),
  ('dwa', {'window': 0}, 'window=0'),
  ('dwa', {'window': 2.5}, 'window=2.5'),
  ('emtl', {'form': 'firm'}, "form='firm'"),
  ('emtl', {'strength': -1.0}, 'strength=-1.0'),
  ('epo', {'preference': [0.5, 0.6]}, 'preference='),
  ('epo', {'preference': [1.5, -0.5]}, 'preference='),
  ('epo', {'preference': [1.0]}, 'preference'),
  ('epo', {'tolerance': -1.0}, 'tolerance=-1.0'),
  ('excess_mtl', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('excess_mtl', {'warmup_steps': 0.5}, 'warmup_steps=0.5'),
  ('excess_mtl', {'first_step': 'raw'}, "first_step='raw'"),
  ('fairgrad', {'alpha': 0.0}, 'alpha=0.0'),
  ('fairgrad', {'alpha': NAN}, 'alpha=nan'),
  ('famo', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('famo', {'weight_decay': -1.0}, 'weight_decay=-1.0'),
  ('famo', {'min_losses': [0.0]}, 'min_losses'),
  ('fixed', {'weights': [1.0]}, 'weights'),
  ('fixed', {'weights': [1.0, NAN]}, 'weights='),
  ('go4align', {'num_groups': 0}, 'num_groups=0'),
  ('go4align', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('graddrop', {'leak': 1.5}, 'leak=1.5'),
  ('gradnorm', {'alpha': -1.0}, 'alpha=-1.0'),
  ('gradnorm', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('gradnorm', {'min_weight': -1.0}, 'min_weight=-1.0'),
  ('gradvac', {'decay': 1.5}, 'decay=1.5'),
  ('ldc_mtl', {'strength': -0.1}, 'strength=-0.1'),
  ('ldc_mtl', {'strength': 0.6}, 'strength=0.6'),
  ('ldc_mtl', {'normalize': 'first'}, "normalize='first'"),
  ('ldc_mtl', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('coba', {'window': 1}, 'window=1'),
  ('coba', {'warmup_steps': 1}, 'warmup_steps=1'),
  ('coba', {'temperature': 0.0}, 'temperature=0.0'),
  ('coba', {'min_share': 1.0}, 'min_share=1.0'),
  ('coba', {'sharpen': 'yes'}, "sharpen='yes'"),
  ('coba', {'source': 'test'}, "source='test'"),
  ('auto_lambda', {'primary': [2]}, 'primary=(2,)'),
  ('auto_lambda', {'primary': []}, 'primary=[]'),
  ('auto_lambda', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('auto_lambda', {'inner_learning_rate': -1.0}, 'inner_learning_rate=-1.0'),
  ('auto_lambda', {'initial_weight': 0.0}, 'initial_weight=0.0'),
  ('auto_lambda', {'projection': 'simplex'}, "projection='simplex'"),
  ('auto_lambda', {'hypergradient': 'finite'}, "hypergradient='finite'"),
  ('ntkmtl_sr', {'power': -0.5}, 'power=-0.5'),
  ('ntkmtl_sr', {'chunks': 0}, 'chunks=0'),
  ('cons_mtl', {'strength': -1.0}, 'strength=-1.0'),
  ('cons_mtl', {'max_ratio': -0.1}, 'max_ratio=-0.1'),
  ('moml', {'primary': [1, 1]}, 'primary=[1, 1]'),
  ('moml', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('moml', {'inner_learning_rate': -1.0}, 'inner_learning_rate=-1.0'),
  ('moml', {'normalize': 'loss'}, "normalize='loss'"),
  ('moml', {'hypergradient': 'finite'}, "hypergradient='finite'"),
  ('igb', {'warmup_steps': 0}, 'warmup_steps=0'),
  ('igb', {'base_steps': 200}, 'base_steps=200'),
  ('imtl', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('imtl', {'log_scale': NAN}, 'log_scale=nan'),
  ('imtl_l', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('imtl_l', {'log_scale': NAN}, 'log_scale=nan'),
  ('krum', {'num_byzantine': -1}, 'num_byzantine=-1'),
  ('krum', {'num_byzantine': 1}, 'num_byzantine=1'),
  ('krum', {'num_byzantine': 0.5}, 'num_byzantine=0.5'),
  ('krum', {'num_byzantine': 0, 'num_selected': 0}, 'num_selected=0'),
  ('lr_annealing', {'primary': 2}, 'primary=2'),
  ('lr_annealing', {'decay': 1.5}, 'decay=1.5'),
  ('lr_annealing', {'weighted': 1}, 'weighted=1'),
  ('meta_balance', {'primary': -1}, 'primary=-1'),
  ('meta_balance', {'relax_factor': 1.5}, 'relax_factor=1.5'),
  ('meta_balance', {'decay': 1.0}, 'decay=1.0'),
  ('mgda', {'normalize': 'l1'}, "normalize='l1'"),
  ('moco', {'decay': 1.0}, 'decay=1.0'),
  ('moco', {'gain_power': -1.0}, 'gain_power=-1.0'),
  ('moco', {'learning_rate': NAN}, 'learning_rate=nan'),
  ('moco', {'learning_rate_power': -1.0}, 'learning_rate_power=-1.0'),
  ('moco', {'regularization': -1.0}, 'regularization=-1.0'),
  ('moco', {'projection': 'ball'}, "projection='ball'"),
  ('gcond', {'weak_cosine': 1.5}, 'weak_cosine=1.5'),
  ('gcond', {'main_cosine': 0.5}, 'main_cosine=0.5'),
  ('gcond', {'critical_cosine': -0.5}, 'critical_cosine=-0.5'),
  ('gcond', {'power': 0.0}, 'power=0.0'),
  ('gcond', {'stability_weight': 1.5}, 'stability_weight=1.5'),
  ('gcond', {'decay': 1.0}, 'decay=1.0'),
  ('son_goku', {'decay': 1.0}, 'decay=1.0'),
  ('son_goku', {'threshold': 1.5}, 'threshold=1.5'),
  ('son_goku', {'refresh_steps': 0}, 'refresh_steps=0'),
  ('son_goku', {'anneal_steps': -1}, 'anneal_steps=-1'),
  ('m_config', {'b1': 1.0}, 'b1=1.0'),
  ('m_config', {'preference': [-1.0, 1.0]}, 'preference='),
  ('modo', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('modo', {'regularization': -1.0}, 'regularization=-1.0'),
  ('nash_mtl', {'max_norm': -1.0}, 'max_norm=-1.0'),
  ('pbi', {'penalty': -1.0}, 'penalty=-1.0'),
  ('pbi', {'preference': [1.0]}, 'preference'),
  ('pbi', {'reference': [1.0]}, 'reference'),
  ('pcd', {'primary': -1}, 'primary=-1'),
  ('pcd', {'primary': 2}, 'primary=2'),
  ('pcd', {'tau': 2.0}, 'tau=2.0'),
  ('pcd', {'decay': 1.0}, 'decay=1.0'),
  ('pcd', {'eps': -1.0}, 'eps=-1.0'),
  ('pcgrad', {'reduction': 'max'}, "reduction='max'"),
  ('pivrg', {'scores': [1.0]}, 'scores'),
  ('pivrg', {'scores': [1.0, 0.0]}, 'scores='),
  ('pivrg', {'scores': [1.0, 1.0], 'window': 0}, 'window=0'),
  ('pivrg', {'scores': [1.0, 1.0], 'bound': 1.0}, 'bound=1.0'),
  (
    'pivrg',
    {'scores': [1.0, 1.0], 'min_temperature': 0.0},
    'min_temperature=0.0',
  ),
  ('relobralo', {'decay': 1.5}, 'decay=1.5'),
  ('relobralo', {'keep_probability': -0.5}, 'keep_probability=-0.5'),
  ('relobralo', {'temperature': 0.0}, 'temperature=0.0'),
  ('pmgda', {'preference': [2.0, 3.0]}, 'preference='),
  ('pmgda', {'strength': 1.5}, 'strength=1.5'),
  ('pmgda', {'tolerance': NAN}, 'tolerance=nan'),
  ('pmtl', {'preference': [0.0, 0.0]}, 'preference='),
  ('pmtl', {'others': [[0.5, 0.7]]}, 'others='),
  ('pmtl', {'others': 'x'}, "others='x'"),
  ('pmtl', {'others': [[-0.5, 1.5]]}, 'others='),
  ('pmtl', {'others': [0.5, 0.5]}, 'others'),
  ('pmtl', {'others': [[1.0, 0.0, 0.0]]}, 'others'),
  ('pmtl', {'warmup_steps': -1}, 'warmup_steps=-1'),
  ('rlw', {'distribution': 'gamma'}, "distribution='gamma'"),
  ('sdmgrad', {'lambda_': -1.0}, 'lambda_=-1.0'),
  ('sdmgrad', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('sdmgrad', {'momentum': -1.0}, 'momentum=-1.0'),
  ('sdmgrad', {'num_steps': 0}, 'num_steps=0'),
  ('sdmgrad', {'preference': [1.0]}, 'preference'),
  ('slaw', {'decay': 1.5}, 'decay=1.5'),
  ('slaw', {'eps': 0.0}, 'eps=0.0'),
  ('stch', {'temperature': 0.0}, 'temperature=0.0'),
  ('stch', {'preference': [1.0]}, 'preference'),
  ('stch', {'preference': [1.0, -1.0]}, 'preference='),
  ('stch', {'reference': [1.0]}, 'reference'),
  ('stch', {'warmup_steps': 0}, 'warmup_steps=0'),
  ('trimmed_mean', {'trim': -1}, 'trim=-1'),
  ('trimmed_mean', {'trim': 0.5}, 'trim=0.5'),
  ('uncertainty', {'learning_rate': -1.0}, 'learning_rate=-1.0'),
  ('uncertainty', {'log_variance': NAN}, 'log_variance=nan'),
  ('uncertainty', {'likelihood': 'laplace'}, "likelihood='laplace'"),
  ('upgrad', {'preference': [1.0]}, 'preference'),
  ('uw_so', {'temperature': 0.0}, 'temperature=0.0'),
]


@pytest.mark.parametrize(
  ('name', 'kwargs', 'words'),
  ARGUMENTS,
  ids=[f'{name}-{words}' for name, _, words in ARGUMENTS],
)
def test_wrong_argument_is_refused_by_name(name, kwargs, words):
  with pytest.raises((TypeError, ValueError)) as caught:
    mtl.get_method(name)(2, **kwargs).init(jnp.zeros(3))
  message = str(caught.value)
  assert words in message
  assert any(word in message for word in ('must', 'not one of', 'expected')), (
    message
  )


def test_every_argument_has_a_row():
  options = set(inspect.signature(mtl.aggregate).parameters)
  flags = {'normalize', 'squared', 'nadir_steps'}
  missing = {
    (m.name, k)
    for m in FIRST
    if '(' not in m.name  # a wrapper
    for k in inspect.signature(mtl.get_method(m.name)).parameters
    if k not in options | flags
  } - {(name, k) for name, kwargs, _ in ARGUMENTS for k in kwargs}
  assert not missing


# What a loss of this value does to the weights of a method that reads losses:
# every one is finite, or all of the tasks present are NaN.
LOSS_READERS = [
  m for m in METHODS if 'losses' in m(2).needs and '(' not in m.name
]


@pytest.mark.parametrize(
  'm', [m for m in FIRST if m in LOSS_READERS], ids=lambda m: m.name
)
def test_losses_that_are_missing_are_named(m):
  tx = m(2)
  with pytest.raises(TypeError, match='losses=losses'):
    tx.update(jnp.eye(2, 3), tx.init(jnp.zeros(3)))


@pytest.mark.parametrize('m', LOSS_READERS, ids=lambda m: m.name)
@pytest.mark.parametrize('bad', [0.0, -1.0])
def test_losses_without_a_logarithm_have_an_outcome(m, bad):
  tx = m(2)
  grads = jnp.array([[1.0, 0.0, 0.5], [0.2, 2.0, 0.0]])
  losses = jnp.array([bad, 1.0])
  weights = mtl.get_weights(
    tx.update(grads, tx.init(jnp.zeros(3)), losses=losses)[1]
  )
  bad_weights = np.isnan(weights)
  assert np.all(np.isfinite(weights)) or np.all(bad_weights), weights
