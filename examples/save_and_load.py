"""Write a trained model to one file, read it back, and get the same codes."""

import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import diabolo

EPOCHS = int(os.environ.get("EPOCHS", "20"))


def main() -> None:
    X = load_digits().data
    model = diabolo.DeepAutoencoder(latent_dim=16, epochs=EPOCHS, random_state=0).fit(X)
    path = model.save("digits.safetensors")
    again = diabolo.load(path)

    same = np.array_equal(model.transform(X), again.transform(X))
    print(f"{path}: {Path(path).stat().st_size:,} bytes, a {type(again).__name__}, same codes: {same}")


if __name__ == "__main__":
    main()
