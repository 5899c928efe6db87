"""Denoisers by the names of their preconditionings, as checkpoints have them."""

from restart_sampling.models.ddpm import DDPMPrecond, iDDPMPrecond
from restart_sampling.models.denoiser import Denoiser, EDM2Precond, EDMPrecond, VEPrecond, VPPrecond

DENOISERS: dict[str, type[Denoiser]] = {
    "EDMPrecond": EDMPrecond,
    "VPPrecond": VPPrecond,
    "VEPrecond": VEPrecond,
    "iDDPMPrecond": iDDPMPrecond,
    "DDPMPrecond": DDPMPrecond,
    "EDM2Precond": EDM2Precond,
}
