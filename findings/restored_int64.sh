#!/usr/bin/env bash
# int64 saved from numpy comes back modulo 2**32 where int64 is asked for.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 orbax-checkpoint==0.12.8
cd "$scratch"
JAX_PLATFORMS=cpu venv/bin/python - <<'PY'
import pathlib
import warnings
from importlib import metadata

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

print('jax', jax.__version__, 'orbax', metadata.version('orbax-checkpoint'))
path = pathlib.Path('saved').absolute()
ocp.save(path, {'a': np.array([2**40 + 7])})
here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
wanted = {'a': jax.ShapeDtypeStruct((1,), np.int64, sharding=here)}
with warnings.catch_warnings(record=True) as said:
  warnings.simplefilter('always')
  got = ocp.load(path, wanted)['a']
print('expected:', 2**40 + 7, 'or an error or a warning')
print('seen:', int(got[0]), got.dtype, '| warnings:', len(said))
print('without the type:', ocp.load(path)['a'])
assert int(got[0]) == 7 and not said, 'it has changed'
PY
