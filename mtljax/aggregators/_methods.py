"""Every method as ``mtl.<name>(num_tasks, ...)``: the one place that names it.

`python docs/make_stubs.py` exports what stands here.
"""

from __future__ import annotations

from mtljax.aggregators import (
  _db_mtl,
  _excess_mtl,
  _graddrop,
  _lr_annealing,
  _m_config,
  _meta_balance,
  _moco,
  _trimmed_mean,
)
from mtljax.aggregators._lift import (
  AHEAD,
  AHEAD_EACH,
  ALIGNED,
  CROSS,
  NORMS,
  lift,
  lift_rule,
)
from mtljax.weightings import (
  _aligned,
  _auto_lambda,
  _balancer,
  _bmtl,
  _cagrad,
  _coba,
  _conflict_free,
  _conic_grad,
  _cons_mtl,
  _cosmos,
  _dwa,
  _epo,
  _fairgrad,
  _famo,
  _geometric,
  _go4align,
  _gradnorm,
  _gradvac,
  _igb,
  _imtl,
  _imtl_hybrid,
  _imtl_l,
  _krum,
  _ldc_mtl,
  _linear,
  _mgda,
  _modo,
  _moml,
  _nash,
  _ntkmtl,
  _pbi,
  _pcd,
  _pcgrad,
  _pivrg,
  _pmgda,
  _pmtl,
  _relobralo,
  _rlw,
  _sdmgrad,
  _slaw,
  _slw,
  _stch,
  _uncertainty,
  _upgrad,
  _uw_o,
)

sum_losses = lift(_linear.sum_losses)
mean = lift(_linear.mean)
fixed = lift(_linear.fixed, _example=', weights=[1.0, 0.5]')
rlw = lift(_rlw.rlw)
uncertainty = lift(_uncertainty.uncertainty)
mgda = lift(_mgda.mgda)
pcgrad = lift(_pcgrad.pcgrad)
cagrad = lift(_cagrad.cagrad)
imtl_g = lift(_imtl.imtl_g)
nash_mtl = lift(_nash.nash_mtl, max_norm=1.0)
fairgrad = lift(_fairgrad.fairgrad)
aligned_mtl = lift(_aligned.aligned_mtl)
bmtl = lift(_bmtl.bmtl)
conflict_free = lift(_conflict_free.conflict_free)
dual_proj = lift(_upgrad.dual_proj)
dwa = lift(_dwa.dwa)
famo = lift(_famo.famo)
geometric = lift(_geometric.geometric)
go4align = lift(_go4align.go4align)
gradnorm = lift(_gradnorm.gradnorm)
gradvac = lift(_gradvac.gradvac)
imtl = lift(_imtl_hybrid.imtl)
imtl_l = lift(_imtl_l.imtl_l)
krum = lift(_krum.krum, _example=', num_byzantine=0')
pcd = lift(_pcd.pcd)
pivrg = lift(_pivrg.pivrg, _example=', scores=[1.0, 0.5]')
slaw = lift(_slaw.slaw)
slw = lift(_slw.slw)
stch = lift(_stch.stch)
upgrad = lift(_upgrad.upgrad)
uw_o = lift(_uw_o.uw_o)
uw_so = lift(_uw_o.uw_so)
cosmos = lift(_cosmos.cosmos)
pbi = lift(_pbi.pbi)
conic_grad = lift(_conic_grad.conic_grad)
igb = lift(_igb.igb)
relobralo = lift(_relobralo.relobralo)
balancer = lift(_balancer.balancer)
ldc_mtl = lift(_ldc_mtl.ldc_mtl)
coba = lift(_coba.coba)
epo = lift(_epo.epo)
pmtl = lift(_pmtl.pmtl)
pmgda = lift(_pmgda.pmgda)
modo = lift(_modo.modo, _reads=CROSS)
sdmgrad = lift(_sdmgrad.sdmgrad, _reads=CROSS)
auto_lambda = lift(_auto_lambda.auto_lambda, _reads=AHEAD)
moml = lift(_moml.moml, _reads=AHEAD_EACH)
ntkmtl_sr = lift(_ntkmtl.ntkmtl_sr, _reads=NORMS)
cons_mtl = lift(_cons_mtl.cons_mtl, _reads=ALIGNED)
graddrop = lift_rule(_graddrop.graddrop)
trimmed_mean = lift_rule(_trimmed_mean.trimmed_mean)
excess_mtl = lift_rule(_excess_mtl.excess_mtl)
moco = lift_rule(_moco.moco)
m_config = lift_rule(_m_config.m_config)
db_mtl = lift_rule(_db_mtl.db_mtl)
meta_balance = lift_rule(_meta_balance.meta_balance)
lr_annealing = lift_rule(_lr_annealing.lr_annealing)
