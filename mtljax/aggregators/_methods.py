"""Every method as ``mtl.<name>(num_tasks, ...)``: one line each."""

from __future__ import annotations

from mtljax import weightings
from mtljax.aggregators import (
  _db_mtl,
  _excess_mtl,
  _graddrop,
  _lr_annealing,
  _meta_balance,
  _moco,
  _trimmed_mean,
)
from mtljax.aggregators._lift import CROSS, lift, lift_rule

sum_losses = lift(weightings.sum_losses)
mean = lift(weightings.mean)
fixed = lift(weightings.fixed, _example=', weights=[1.0, 0.5]')
rlw = lift(weightings.rlw)
uncertainty = lift(weightings.uncertainty)
mgda = lift(weightings.mgda)
pcgrad = lift(weightings.pcgrad)
cagrad = lift(weightings.cagrad)
imtl_g = lift(weightings.imtl_g)
nash_mtl = lift(weightings.nash_mtl, max_norm=1.0)
fairgrad = lift(weightings.fairgrad)
aligned_mtl = lift(weightings.aligned_mtl)
bmtl = lift(weightings.bmtl)
conflict_free = lift(weightings.conflict_free)
dual_proj = lift(weightings.dual_proj)
dwa = lift(weightings.dwa)
emtl = lift(weightings.emtl)
famo = lift(weightings.famo)
geometric = lift(weightings.geometric)
go4align = lift(weightings.go4align)
gradnorm = lift(weightings.gradnorm)
gradvac = lift(weightings.gradvac)
imtl = lift(weightings.imtl)
imtl_l = lift(weightings.imtl_l)
krum = lift(weightings.krum, _example=', num_byzantine=0')
pcd = lift(weightings.pcd)
pivrg = lift(weightings.pivrg, _example=', scores=[1.0, 0.5]')
slaw = lift(weightings.slaw)
slw = lift(weightings.slw)
stch = lift(weightings.stch)
upgrad = lift(weightings.upgrad)
uw_o = lift(weightings.uw_o)
uw_so = lift(weightings.uw_so)
modo = lift(weightings.modo, _reads=CROSS)
sdmgrad = lift(weightings.sdmgrad, _reads=CROSS)
cosmos = lift(weightings.cosmos)
pbi = lift(weightings.pbi)
conic_grad = lift(weightings.conic_grad)
igb = lift(weightings.igb)
relobralo = lift(weightings.relobralo)
balancer = lift(weightings.balancer)
graddrop = lift_rule(_graddrop.graddrop)
trimmed_mean = lift_rule(_trimmed_mean.trimmed_mean)
excess_mtl = lift_rule(_excess_mtl.excess_mtl)
moco = lift_rule(_moco.moco)
db_mtl = lift_rule(_db_mtl.db_mtl)
meta_balance = lift_rule(_meta_balance.meta_balance)
lr_annealing = lift_rule(_lr_annealing.lr_annealing)
