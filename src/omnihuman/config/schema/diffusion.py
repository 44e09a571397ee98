"""Flow matching: how noise levels are drawn and how the flow is solved."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Diffusion:
    """sigma = 1 is noise, sigma = 0 is data; the target is v = eps - x0."""

    logit_normal_mean: float = 0.0
    logit_normal_std: float = 1.0
    sigma_floor: float = 0.0
    """Below this level the loss counts the error of the clean latent instead of the velocity's; 0 never does."""
    change_strength: float = 0.0
    """How much more the loss counts what differs from the reference picture; 0 counts all positions alike."""
    shift: float = 1.0
    """Static shift s: sigma -> s sigma / (1 + (s - 1) sigma)."""
