"""The loops that diabolo's training is timed against, each with its library's own defaults otherwise.

Every function trains one pass over X and returns the seconds it took, set-up included where the
library does not let it be separated. Nothing here is used by the package.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from diabolo.training.machine import keep_memory


@dataclass(frozen=True)
class Work:
    """One training task: rows, shape of the net, batch."""

    name: str
    X: np.ndarray
    hidden: tuple[int, ...]
    code: int
    batch: int
    kind: str = "dense"  # dense, conv or variational


class Variational(nn.Module):
    """The usual variational net, which returns its objective."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        n, (h,) = work.X.shape[1], work.hidden
        self.up = nn.Sequential(nn.Linear(n, h), nn.ReLU(), nn.Linear(h, 2 * work.code))
        self.down = nn.Sequential(nn.Linear(work.code, h), nn.ReLU(), nn.Linear(h, n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the batch's mean of squared error and divergence."""
        mean, log_variance = self.up(x).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
        return ((self.down(z) - x) ** 2).sum(1).add(divergence).mean()

    def restored(self, x: torch.Tensor) -> torch.Tensor:
        """Reconstruct at the posterior's mean."""
        return self.down(self.up(x).chunk(2, 1)[0])


def dense(work: Work) -> nn.Sequential:
    """Return the plain net of Linear and ReLU."""
    widths = (work.X.shape[1], *work.hidden, work.code)
    layers: list[nn.Module] = []
    for a, b in pairwise((*widths, *widths[-2::-1])):
        layers += [nn.Linear(a, b), nn.ReLU()]
    del layers[-1], layers[2 * len(widths) - 3]
    return nn.Sequential(*layers)


def conv(work: Work) -> nn.Sequential:
    """Return the plain convolutional net for 28x28 images."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 49, work.code),
        nn.Linear(work.code, 32 * 49), nn.Unflatten(1, (32, 7, 7)),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Flatten(),
    )  # fmt: skip


NETS: dict[str, Callable[[Work], nn.Module]] = {"dense": dense, "conv": conv, "variational": Variational}


def plain_loop(work: Work, net: nn.Module, epochs: int = 1) -> float:
    """Train by the loop of the tutorials (DataLoader, zero_grad, backward, step); return the seconds."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(torch.from_numpy(work.X)), batch_size=work.batch, shuffle=True)
    start = time.perf_counter()
    for _ in range(epochs):
        for (x,) in loader:
            loss = net(x) if work.kind == "variational" else nn.functional.mse_loss(net(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def plain(work: Work) -> float:
    """The loop of the tutorials."""
    return plain_loop(work, NETS[work.kind](work))


def kernels(work: Work) -> float:
    """The plain net's matrix products and convolutions alone, into memory that stays: no loop is faster.

    For each layer the forward product, that of the weight's gradient and, above the first layer, that of
    the input's. No activation, loss, optimizer or gathering of rows. Not a contestant but a bound: of what
    calls these kernels of the library in single precision.
    """
    keep_memory()
    net = NETS[work.kind](work)
    calls: list[Callable[[], object]] = []

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x, y, first = inputs[0].detach().clone(), output.detach().clone(), not calls
        w, b, g = layer.weight.detach(), layer.bias.detach(), torch.randn_like(y)
        if isinstance(layer, nn.Linear):
            down, along = torch.empty_like(w), torch.empty_like(x)
            calls.append(partial(torch.addmm, b, x, w.t(), out=y))
            calls.append(partial(torch.mm, g.t(), x, out=down))
            if not first:
                calls.append(partial(torch.mm, g, w, out=along))
            return
        turned = isinstance(layer, nn.ConvTranspose2d)
        how = (layer.stride, layer.padding, layer.dilation, turned, layer.output_padding, layer.groups)
        both = torch.ops.aten.convolution_backward
        calls.append(partial(torch.convolution, x, w, b, *how))
        calls.append(partial(both, g, x, w, list(b.shape), *how, [not first, True, True]))

    for layer in net.modules():
        if hasattr(layer, "weight"):
            layer.register_forward_hook(note)
    with torch.no_grad():
        net(torch.from_numpy(work.X[: work.batch]))
        start = time.perf_counter()
        for _ in range(len(work.X) // work.batch):
            for call in calls:
                call()
    return time.perf_counter() - start


def sklearn(work: Work) -> float:
    """MLPRegressor on its own input."""
    from sklearn.neural_network import MLPRegressor

    sizes = (*work.hidden, work.code, *work.hidden[::-1])
    model = MLPRegressor(hidden_layer_sizes=sizes, batch_size=work.batch, max_iter=1)
    start = time.perf_counter()
    model.fit(work.X, work.X)
    return time.perf_counter() - start


def pyod(work: Work) -> float:
    """PyOD's AutoEncoder; its fit scores the training rows too."""
    from pyod.models.auto_encoder import AutoEncoder

    model = AutoEncoder(
        epoch_num=1, batch_size=work.batch, hidden_neuron_list=[*work.hidden, work.code],
        batch_norm=False, dropout_rate=0.0, verbose=0,
    )  # fmt: skip
    start = time.perf_counter()
    model.fit(work.X)
    return time.perf_counter() - start


def encdr(work: Work) -> float:
    """Encdr's estimator without its validation split."""
    from encdr import ENCDR

    model = ENCDR(
        list(work.hidden), work.code, batch_size=work.batch, max_epochs=1, validation_split=0.0,
        trainer_kwargs={"enable_progress_bar": False, "logger": False, "enable_checkpointing": False,
                        "accelerator": "cpu", "enable_model_summary": False},
    )  # fmt: skip
    start = time.perf_counter()
    model.fit(work.X)
    return time.perf_counter() - start


def lightning(work: Work) -> float:
    """Lightning's Trainer around the plain net."""
    from lightning import LightningModule, Trainer

    net = dense(work) if work.kind == "dense" else conv(work)

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch, index):  # type: ignore[no-untyped-def]
            return nn.functional.mse_loss(self.net(batch[0]), batch[0])

        def configure_optimizers(self):  # type: ignore[no-untyped-def]
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    loader = DataLoader(TensorDataset(torch.from_numpy(work.X)), batch_size=work.batch, shuffle=True)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    start = time.perf_counter()
    trainer.fit(Module(), loader)
    return time.perf_counter() - start


def pythae(work: Work) -> float:
    """Pythae's AE with the same layers and its BaseTrainer."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import AE, AEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    net = dense(work) if work.kind == "dense" else conv(work)
    middle = len(net) // 2 + (work.kind == "dense" and len(net) % 2)
    parts = (net[:middle], net[middle:])

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = parts[0]

        def forward(self, x):  # type: ignore[no-untyped-def]
            return ModelOutput(embedding=self.net(x))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = parts[1]

        def forward(self, z):  # type: ignore[no-untyped-def]
            return ModelOutput(reconstruction=self.net(z))

    X = torch.from_numpy(work.X)
    with tempfile.TemporaryDirectory() as folder:
        model = AE(AEConfig(input_dim=(X.shape[1],), latent_dim=work.code), Encoder(), Decoder())
        config = BaseTrainerConfig(
            output_dir=folder, num_epochs=1, per_device_train_batch_size=work.batch, learning_rate=1e-3
        )
        trainer = BaseTrainer(model, BaseDataset(X, torch.zeros(len(X))), training_config=config)
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


RIVALS: dict[str, tuple[Callable[[Work], float], tuple[str, ...]]] = {
    "plain loop": (plain, ("dense", "conv", "variational")),
    "scikit-learn": (sklearn, ("dense",)),
    "PyOD": (pyod, ("dense",)),
    "encdr": (encdr, ("dense",)),
    "Lightning": (lightning, ("dense", "conv")),
    "pythae": (pythae, ("dense", "conv")),
}


def silenced(function: Callable[[Work], float], work: Work) -> float:
    """Run it without its messages."""
    logging.disable(logging.WARNING)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        return function(work)
