"""Sharpness-aware forms of any aggregator."""

from mtljax.sharpness._ascent import adaptive_ascent as adaptive_ascent
from mtljax.sharpness._ascent import normalized_ascent as normalized_ascent
from mtljax.sharpness._flat_regions import flat_regions as flat_regions
from mtljax.sharpness._gradient_norm import (
  gradient_norm_penalty as gradient_norm_penalty,
)
from mtljax.sharpness._sam import sam as sam
from mtljax.sharpness._samo import samo as samo
