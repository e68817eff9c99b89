#!/usr/bin/env bash
# Adam with injected hyper-parameters is NaN on bfloat16 where Adam is not.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 optax==0.2.8
cd "$scratch"
JAX_PLATFORMS=cpu venv/bin/python - <<'PY'
import jax.numpy as jnp
import optax

print('optax', optax.__version__)
params = jnp.ones(3, jnp.bfloat16)
grads = jnp.full(3, 0.5, jnp.bfloat16)
steps = []
for make in (optax.adam, optax.inject_hyperparams(optax.adam)):
  tx = make(1e-3)
  state = tx.init(params)
  steps.append(tx.update(grads, state, params)[0])
print('expected: the same first step; seen:', *steps)
print('b2 that was injected:', state.hyperparams['b2'])
assert jnp.isfinite(steps[0]).all(), 'it has changed'
assert jnp.isnan(steps[1]).all(), 'it has changed'
PY
