"""The one place where the parts meet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diabolo.parts import Corruption, ForwardPass, LatentModule, Level, LossModule, Network
from diabolo.parts.architectures.base import SeededDropout, TiedLinear
from diabolo.parts.latents import Selecting
from diabolo.parts.losses import Clip, Linked


class AutoencoderModule(nn.Module):
    """Corruption, encoder, latent and decoder in a row, with the loss that reads the output.

    Shapes: x (n, *shape) in scaled units; codes (n, *code_shape).
    """

    def __init__(
        self, network: Network, latent: LatentModule, loss: LossModule, corruption: Corruption | None
    ) -> None:
        super().__init__()
        self.encoder = network.encoder
        self.latent = latent
        self.decoder = network.decoder
        self.loss = loss
        self.corruption = corruption
        self.code_shape = network.code_shape
        self.pairs = network.pairs
        self._levels = network.levels

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> ForwardPass:
        """Pass a batch through.

        With a generator the input is corrupted and the code drawn, as in training; without one
        nothing is left to chance.
        """
        seen = x if generator is None or self.corruption is None else self.corruption(x, generator)
        code = self.latent(self.encoder(seen), generator)
        return ForwardPass(target=x, seen=seen, code=code, raw=self.decoder(code.value))

    def encode(self, x: Tensor) -> Tensor:
        """Map x (n, *shape) to its deterministic code (n, *code_shape)."""
        mean: Tensor = self.latent(self.encoder(x)).mean
        return mean

    def decode(self, z: Tensor) -> Tensor:
        """Map codes (n, *code_shape) to reconstructions (n, *shape) in scaled units."""
        return self.loss.mean(self.decoder(z))

    def start_at(self, mean: Tensor) -> None:
        """Set the bias of a dense output layer so that the first reconstruction is near ``mean`` (*shape)."""
        layers = [m for m in self.decoder.modules() if hasattr(m, "weight")]
        output = layers[-1] if layers else None
        if not isinstance(output, nn.Linear | TiedLinear) or output.bias.numel() != mean.numel():
            return
        if isinstance(self.loss, Linked) and not isinstance(self.loss.output, Clip):
            return
        with torch.no_grad():
            output.bias.copy_(self.loss.raw_of(mean.flatten()))

    def reach(self, low: Tensor, high: Tensor) -> None:
        """Let an output that is clipped reach from low to high, each (*shape) in scaled units."""
        if isinstance(self.loss, Linked) and isinstance(self.loss.output, Clip):
            self.loss.output.widen(low, high)

    def levels(self) -> list[Level]:
        """Return the levels of the hourglass, input to output."""
        return list(self._levels)

    def draw_from(self, generator: torch.Generator | None) -> None:
        """Let the dropout layers draw from ``generator``, and a latent that counts know of it."""
        for module in self.modules():
            if isinstance(module, SeededDropout | Selecting):
                module.generator = generator
