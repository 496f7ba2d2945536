"""Train a variational autoencoder on the digits and draw new ones into samples.png."""

import os

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from diabolo import VariationalAutoencoder

EPOCHS = int(os.environ.get("EPOCHS", "100"))
SIDE = 10


def main() -> None:
    images = load_digits().images / 16.0
    model = VariationalAutoencoder(latent_dim=10, epochs=EPOCHS, random_state=0).fit(images)
    digits = model.sample(SIDE * SIDE, random_state=0).clip(0, 1)

    tiles = np.pad(digits, ((0, 0), (1, 1), (1, 1))).reshape(SIDE, SIDE, 10, 10)
    sheet = tiles.transpose(0, 2, 1, 3).reshape(SIDE * 10, SIDE * 10)
    picture = Image.fromarray(np.uint8(255 * (1 - sheet)))
    picture.resize((800, 800), Image.Resampling.NEAREST).save("samples.png")
    print(f"{len(digits)} new digits are in samples.png")


if __name__ == "__main__":
    main()
