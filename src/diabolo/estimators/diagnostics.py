"""What a trained bottleneck does: active, dead and saturated units, divergence per unit, Jacobian norm."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diabolo import metrics
from diabolo.autoencoder import AutoencoderModule
from diabolo.parts import activation
from diabolo.parts.jacobian import squared_jacobian_norm
from diabolo.parts.penalties import posterior_divergence

_ACTIVE_KL = 0.01  # nats: a unit below carries nothing
_ACTIVE_VARIANCE = 1e-4  # share of the mean variance of the code's units: below, a unit is constant
_ACTIVE_LEVEL = 0.1  # share of a unit's largest magnitude that counts as active
_SATURATED = 0.05  # share of the range of a bounded activation, at either end
_JACOBIAN_ROWS = 256


def diagnose(module: AutoencoderModule, x: Tensor, latent_activation: str | None) -> dict[str, Any]:
    """Return the diagnostics on rows x (n, *shape) in scaled units.

    A unit is *active in a sample* where its magnitude exceeds a tenth of its largest. It is *dead* where
    it never varies or, with a Gaussian posterior, where its divergence from the prior is next to nothing.
    ``jacobian_norm`` is the mean squared Frobenius norm of d code / d input, both in the network's
    own (scaled) units. It grows with the scale of the code, which a kind may choose freely;
    ``relative_jacobian`` does not: it is the encoder's gain over all directions at a sample relative to
    its gain along the data, see ``diabolo.metrics.relative_jacobian``.
    """
    with torch.no_grad():
        code = module.latent(module.encoder(x))
        z = code.mean.flatten(1)
        name = latent_activation or "linear"
        level = z.abs()
        peak = level.amax(0).clamp(min=1e-12)
        variance = z.var(0, correction=0)
        alive = variance > _ACTIVE_VARIANCE * variance.mean().clamp(min=1e-12)
        kl = None
        if code.log_variance is not None:
            kl = posterior_divergence(code.mean, code.log_variance).mean(0).flatten()
            alive = kl > _ACTIVE_KL
        active = (level > _ACTIVE_LEVEL * peak) & alive
        bounds = activation(name)
        saturated = math.nan
        if math.isfinite(bounds.low) and math.isfinite(bounds.high):
            margin = _SATURATED * (bounds.high - bounds.low)
            saturated = float(((z < bounds.low + margin) | (z > bounds.high - margin)).float().mean())
        norm = squared_jacobian_norm(module.encoder, module.latent, x[:_JACOBIAN_ROWS])
    return {
        "code_size": z.shape[1],
        "active_units": int(alive.sum()),
        "dead_units": int((~alive).sum()),
        "active_share": float(active.float().mean()),
        "saturated_share": saturated,
        "jacobian_norm": float(norm.mean()),
        "relative_jacobian": metrics.relative_jacobian(
            float(norm.mean()), float(variance.sum()), float(x.flatten(1).var(0, correction=0).mean())
        ),
        "kl_per_unit": None if kl is None else kl.numpy(force=True),
    }
