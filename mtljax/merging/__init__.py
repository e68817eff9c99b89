"""One network out of several that were trained apart: no gradients of data.

The baseline that joint training has to beat where the networks of single tasks
are there already.
"""

from mtljax.merging._adamerging import AdaMerged, adamerging, entropy
from mtljax.merging._arithmetic import task_arithmetic, task_vectors
from mtljax.merging._ties import ties, trim_vectors

__all__ = [
  'AdaMerged',
  'adamerging',
  'entropy',
  'task_arithmetic',
  'task_vectors',
  'ties',
  'trim_vectors',
]
