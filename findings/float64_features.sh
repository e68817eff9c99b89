#!/usr/bin/env bash
# A float64 feature of a tfds data set is stored as float32 and read back as
# float64 that holds the rounded value; with an encoding it keeps all its bits.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q tensorflow-datasets==4.9.10 array_record==0.8.6 numpy==2.4.6
cd "$scratch"
cat > energies.py <<'PY'
from importlib import metadata

import numpy as np
import tensorflow_datasets as tfds

print('tensorflow-datasets', metadata.version('tensorflow-datasets'))
ENERGY = np.float64(-76.40467123456)  # of a molecule, in Hartree
FEATURES = {
  'scalar': tfds.features.Scalar(np.float64),
  'tensor': tfds.features.Tensor(shape=(1,), dtype=np.float64),
  'bytes': tfds.features.Tensor(shape=(1,), dtype=np.float64, encoding='bytes'),
  'zlib': tfds.features.Tensor(shape=(1,), dtype=np.float64, encoding='zlib'),
}


class Energies(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(FEATURES)
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    row = {name: np.full(1, ENERGY) for name in FEATURES}
    yield 0, {**row, 'scalar': ENERGY}


builder = Energies(data_dir='data', file_format='array_record')
builder.download_and_prepare()
row = builder.as_data_source(split='train')[0]
off = {}
for name in FEATURES:
  found = np.asarray(row[name])
  off[name] = float(np.abs(found - ENERGY).max())
  print(f'{name}: {found.dtype}, off by {off[name]:.2g} Hartree')
  assert found.dtype == np.float64, 'it has changed'
rounded = abs(float(np.float32(ENERGY)) - float(ENERGY))
assert off['scalar'] == off['tensor'] == rounded > 1e-7, 'it has changed'
assert off['bytes'] == off['zlib'] == 0, 'it has changed'
PY
venv/bin/python energies.py
