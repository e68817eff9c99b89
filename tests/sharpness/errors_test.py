import jax.numpy as jnp
import optax
import pytest

import mtljax as mtl


@pytest.mark.parametrize(
  'call, error, message',
  [
    (lambda: mtl.flat_regions(mtl.mean(2), rho_shared=-1), ValueError, 'rho_s'),
    (lambda: mtl.flat_regions(mtl.mean(2), rho_task=-1), ValueError, 'rho_t'),
    (lambda: mtl.samo(mtl.mean(2), rho=-1), ValueError, 'rho=-1'),
    (lambda: mtl.samo(mtl.mean(2), beta=1.5), ValueError, 'beta=1.5'),
    (lambda: mtl.samo(mtl.mean(2), smoothing=0), ValueError, 'smoothing=0'),
    (lambda: mtl.samo(mtl.mean(2), key='a'), TypeError, 'typed key'),
    (
      lambda: mtl.samo(mtl.mean(2), normalize='layers'),
      ValueError,
      "Did you mean 'layer'",
    ),
    (
      lambda: mtl.samo(mtl.mean(2, nonfinite='drop_task')),
      ValueError,
      'no tasks to drop',
    ),
    (
      lambda: mtl.gradient_norm_penalty(mtl.mean(2), alpha=2),
      ValueError,
      'alpha=2',
    ),
    (
      lambda: mtl.flat_regions(mtl.mean(2), ascent='adaptiv'),
      ValueError,
      "Did you mean 'adaptive'",
    ),
    (
      lambda: mtl.sam(mtl.mean(2), ascent='asam'),
      ValueError,
      "'plain', 'adaptive'",
    ),
    (
      lambda: mtl.flat_regions(mtl.mean(2), aggregation='both'),
      ValueError,
      "aggregation='both'",
    ),
    (
      lambda: mtl.flat_regions(mtl.mean(2), rescale='norm'),
      ValueError,
      "rescale='norm'",
    ),
    (
      lambda: mtl.flat_regions(mtl.mean(2), norms='one'),
      ValueError,
      "norms='one'",
    ),
    (
      lambda: mtl.flat_regions(mtl.mean(2), mode='vmap'),
      ValueError,
      "mode='vmap'",
    ),
    (
      lambda: mtl.flat_regions(mtl.mean(2), rho_task=0.1),
      ValueError,
      'rho_task=0.1.*no labels',
    ),
    (
      lambda: mtl.flat_regions(
        mtl.mean(2, labels='shared'), rho_task=0.1, norms='joint'
      ),
      ValueError,
      "norms='joint' has no radius for heads",
    ),
    (
      lambda: mtl.flat_regions(mtl.mean(2), norms='joint', perturb_heads=False),
      ValueError,
      "use norms='separate'",
    ),
    (
      lambda: mtl.flat_regions(
        mtl.fixed(2, weights=[1.0, 2.0]), aggregation='second'
      ),
      ValueError,
      'fixed.*fit 2 tasks only',
    ),
    (
      lambda: mtl.flat_regions(mtl.contrib.emtl(3), aggregation='each'),
      ValueError,
      "emtl.*reads losses.*use 'separate'",
    ),
    (
      lambda: mtl.flat_regions(
        mtl.inject_hyperparams(mtl.cagrad)(3), aggregation='each'
      ),
      ValueError,
      'no rule for weights',
    ),
    (
      lambda: mtl.flat_regions(mtl.modo(2)),
      TypeError,
      'compares the gradients of two further',
    ),
    (
      lambda: mtl.sam(mtl.adatask(2, 0.1)),
      TypeError,
      'adatask returns steps',
    ),
    (
      lambda: mtl.flat_regions(mtl.uncertainty(2)).update(
        jnp.ones((2, 3)),
        mtl.flat_regions(mtl.uncertainty(2)).init(None),
        jnp.ones(3),
        task_grad_fn=lambda p, t: (jnp.ones(()), p),
      ),
      TypeError,
      'uncertainty reads the task losses',
    ),
    (
      lambda: mtl.adaptive_ascent(0.1).update(jnp.ones(3), None),
      ValueError,
      'pass them',
    ),
    (lambda: mtl.adaptive_ascent(0.1, eta=-1), ValueError, 'eta=-1'),
    (lambda: mtl.sam(mtl.mean(2), rho=-0.1), ValueError, 'rho=-0.1'),
    (
      lambda: mtl.sam(mtl.mean(2, nonfinite='drop_task')),
      ValueError,
      'no tasks to drop',
    ),
    (
      lambda: mtl.sam(mtl.mean(2)).update(
        jnp.ones(3),
        mtl.sam(mtl.mean(2)).init(None),
        jnp.ones(3),
        task_grad_fn=None,
      ),
      ValueError,
      'on axis 0',
    ),
    (
      lambda: mtl.task_grad_fn(lambda w: jnp.stack([w, w]))(jnp.ones(()), 2),
      ValueError,
      'task 2 of 2',
    ),
    (lambda: mtl.sam(optax.adam(0.1)), TypeError, 'must be an aggregator'),
    (
      lambda: mtl.flat_regions(mtl.sam(mtl.mean(2))),
      TypeError,
      'already sharpness-aware',
    ),
    (
      lambda: mtl.sam(mtl.mean(2)).update(
        jnp.ones((2, 3)), mtl.sam(mtl.mean(2)).init(None)
      ),
      TypeError,
      'task_grad_fn',
    ),
    (
      lambda: mtl.flat_regions(mtl.mean(2)).update(
        jnp.ones((2, 3)),
        mtl.flat_regions(mtl.mean(2)).init(None),
        task_grad_fn=None,
      ),
      ValueError,
      'pass them',
    ),
  ],
)
def test_bad_input(call, error, message):
  with pytest.raises(error, match=message):
    call()
