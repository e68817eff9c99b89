#!/usr/bin/env bash
# float64 saved and asked for inside `with jax.enable_x64(True)` comes back as
# float32: the load runs in a thread where the scope does not hold.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 orbax-checkpoint==0.12.8
cd "$scratch"
cat > scoped.py <<'PY'
import pathlib
import sys
import warnings
from importlib import metadata

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

print('jax', jax.__version__, 'orbax', metadata.version('orbax-checkpoint'))


def load_again(name):
  path = pathlib.Path(name).absolute()
  ocp.save(path, {'a': jax.numpy.asarray([1 / 3], 'float64')})
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = {'a': jax.ShapeDtypeStruct((1,), np.float64, sharding=here)}
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter('always')
    got = ocp.load(path, wanted)['a']
  return str(got.dtype), len(said)


if sys.argv[1] == 'scoped':
  with jax.enable_x64(True):
    found = load_again('scoped')
else:
  jax.config.update('jax_enable_x64', True)
  found = load_again('global')
print(f'{sys.argv[1]}: expected float64, seen {found[0]}, warnings: {found[1]}')
wanted = {'scoped': 'float32', 'global': 'float64'}[sys.argv[1]]
assert found == (wanted, 0), 'it has changed'
PY
JAX_PLATFORMS=cpu venv/bin/python scoped.py scoped
JAX_PLATFORMS=cpu venv/bin/python scoped.py global
