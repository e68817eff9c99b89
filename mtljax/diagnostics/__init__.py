"""What training has done to the tasks: conflict, flatness, calibration.

Pictures are in `mtljax.diagnostics.plots`, which needs matplotlib.
"""

from mtljax.diagnostics._affinity import best_groups, task_affinity
from mtljax.diagnostics._calibration import (
  Calibration,
  EntropyHistogram,
  Reliability,
)
from mtljax.diagnostics._conflict import (
  ConflictRate,
  Similarity,
  sign_conflicts,
  similarity,
)
from mtljax.diagnostics._features import (
  feature_disentanglement,
  feature_saliency,
)
from mtljax.diagnostics._gradients import (
  GradientConflict,
  PairConflict,
  gradient_conflict,
)
from mtljax.diagnostics._hessian import HessianEigenvalues, hessian_eigenvalues
from mtljax.diagnostics._pareto import hypervolume, non_dominated, r2
from mtljax.diagnostics._rankings import ranking_similarity
from mtljax.diagnostics._samples import sample_task_gramian
from mtljax.diagnostics._scale import ScaleSensitivity, scale_sensitivity
from mtljax.diagnostics._sharpness import flat_gradient_norm, task_sharpness
from mtljax.diagnostics._surface import filter_normalized, loss_surface

__all__ = [
  'Calibration',
  'ConflictRate',
  'EntropyHistogram',
  'GradientConflict',
  'HessianEigenvalues',
  'PairConflict',
  'Reliability',
  'ScaleSensitivity',
  'Similarity',
  'best_groups',
  'feature_disentanglement',
  'feature_saliency',
  'filter_normalized',
  'flat_gradient_norm',
  'gradient_conflict',
  'hessian_eigenvalues',
  'hypervolume',
  'loss_surface',
  'non_dominated',
  'r2',
  'ranking_similarity',
  'sample_task_gramian',
  'scale_sensitivity',
  'sign_conflicts',
  'similarity',
  'task_affinity',
  'task_sharpness',
]
