"""Restore digits of which a quarter of the pixels were lost: a denoising autoencoder beside a plain one."""

import os

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from diabolo import Autoencoder, DenoisingAutoencoder

EPOCHS = int(os.environ.get("EPOCHS", "100"))
LOST = 0.25


def main() -> None:
    X = load_digits().data / 16.0
    X_train, X_test = train_test_split(X, random_state=0)
    kept = np.random.default_rng(0).random(X_test.shape) >= LOST
    # a lost pixel shows the mean of its place, which is what masking means to the network
    damaged = np.where(kept, X_test, X_train.mean(0))

    same = {"latent_dim": 32, "hidden_dims": (256,), "epochs": EPOCHS, "random_state": 0}
    models = {
        "plain": Autoencoder(**same),
        "denoising": DenoisingAutoencoder(corruption=f"masking:{LOST}", **same),
    }
    print("squared error per digit, against the clean digit:")
    print(f"  {'damaged, untouched':<20} {((X_test - damaged) ** 2).sum(1).mean():.3f}")
    for name, model in models.items():
        cleaned = model.fit(X_train).reconstruct(damaged)
        print(f"  {name:<20} {((X_test - cleaned) ** 2).sum(1).mean():.3f}")


if __name__ == "__main__":
    main()
