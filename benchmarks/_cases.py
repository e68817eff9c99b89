"""The cases of all benchmarks of training steps, by name."""

from __future__ import annotations

from typing import Any

from benchmarks import _encoders, _models, _networks


def make_case(name: str, quick: bool) -> Any:
  """A case of `_models`, `_encoders` or `_networks`, or ``'resnet18_3'``."""
  if name == 'resnet18_3':
    return _models.resnet18(3, quick)
  for source in (_encoders, _networks):
    if name in source.NAMES:
      return source.make_case(name, quick)
  return _models.make_case(name, quick)
