"""Mergeable metrics, and the scores that compare multi-task methods."""

from mtljax.metrics._accumulators import Accuracy, Mean
from mtljax.metrics._auc import AUC
from mtljax.metrics._delta_m import delta_m, delta_m_tasks, mean_rank
from mtljax.metrics._dense import (
  MeanIoU,
  Median,
  depth_metrics,
  normals_metrics,
  segmentation_metrics,
)
from mtljax.metrics._f1 import F1
from mtljax.metrics._r2 import R2
from mtljax.metrics._robustness import robustness_delta
from mtljax.metrics._summarize import Summary, summarize

__all__ = [
  'AUC',
  'Accuracy',
  'F1',
  'Mean',
  'R2',
  'MeanIoU',
  'Median',
  'Summary',
  'delta_m',
  'delta_m_tasks',
  'depth_metrics',
  'mean_rank',
  'normals_metrics',
  'robustness_delta',
  'segmentation_metrics',
  'summarize',
]
