"""Scenes rendered from a key, with exact segmentation, depth and normals."""

from mtljax.data.scenes._builder import (
  Scenes,
  ScenesConfig,
  load_scenes,
  prepare_scenes,
)
from mtljax.data.scenes._render import CLASSES as SCENE_CLASSES
from mtljax.data.scenes._render import render_scenes

__all__ = [
  'SCENE_CLASSES',
  'Scenes',
  'ScenesConfig',
  'load_scenes',
  'prepare_scenes',
  'render_scenes',
]
