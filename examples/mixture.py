"""Any mixture is one call: convolutional, denoising and variational at once."""

import os

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from diabolo import Autoencoder
from diabolo.parts import Conv, GaussianNoise, GaussianPosterior, PosteriorKL

EPOCHS = int(os.environ.get("EPOCHS", "40"))


def main() -> None:
    images = load_digits().images / 16.0
    train, test = train_test_split(images, random_state=0)

    model = Autoencoder(
        latent_dim=8,
        architecture=Conv(channels=(16, 32), norm="batch"),
        corruption=GaussianNoise(std=0.3),
        latent=GaussianPosterior(),
        penalty=PosteriorKL(beta=1.0, warmup=200),
        loss="gaussian",
        epochs=EPOCHS,
        random_state=0,
    ).fit(train)

    noisy = test + np.random.default_rng(0).normal(0, 0.15, test.shape)
    error = ((model.reconstruct(noisy) - test) ** 2).sum((1, 2)).mean()
    divergence = model.diagnostics(test)["kl_per_unit"]
    print(f"{model.n_parameters_:,} weights; squared error per noisy digit {error:.3f}")
    print("divergence from the prior by unit, in nats:", np.round(divergence, 2))
    model.diagram().save("mixture.svg")
    print("the architecture is drawn in mixture.svg")


if __name__ == "__main__":
    main()
