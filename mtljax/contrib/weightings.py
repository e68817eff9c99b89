"""The rules inside the reconstructions, by the same names."""

from mtljax.contrib._emtl import emtl

__all__ = [
  'emtl',
]
