#!/usr/bin/env bash
# The least of NaN and infinity is infinity, by how many are reduced at once.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$scratch"
cat > least.py <<'PY'
import jax
import jax.numpy as jnp
import numpy as np


def least(x):
  """Of the diagonal: everything else counts as infinity."""
  return jnp.min(jnp.where(jnp.eye(len(x), dtype=bool), x, jnp.inf))


for size in (16, 33):
  x = jnp.full((5, size, size), jnp.nan)
  one = jax.jit(least)(x[0])
  five = jax.jit(jax.vmap(least))(x)
  plain = np.min(np.where(np.eye(size, dtype=bool), np.nan, np.inf))
  print(f'{size}:{plain}:{float(one)}:{",".join(map(str, set(five.tolist()) - {0.0}))}')
PY
JAX_PLATFORMS=cpu venv/bin/python least.py | sed 's/nan,nan.*/nan/' > seen
printf 'jax 0.10.2, float32, CPU. The least entry of a square whose diagonal is NaN, the rest infinity\n'
printf 'expected: NaN, as by numpy, alone and five squares at once\n'
while IFS=: read -r size plain one five; do
  printf 'seen at %s x %s: numpy %s, jax %s, five at once %s\n' "$size" "$size" "$plain" "$one" "$five"
done < seen
grep -qx '16:nan:nan:nan' seen && grep -qx '33:nan:nan:inf' seen || { echo 'it has changed'; exit 1; }
