"""How much does a non-linear code hold that PCA's does not? Ten numbers per digit, three ways."""

import os

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from diabolo import Autoencoder, DeepAutoencoder

EPOCHS = int(os.environ.get("EPOCHS", "100"))
CODE = 10


def main() -> None:
    X = load_digits().data / 16.0
    X_train, X_test = train_test_split(X, random_state=0)

    pca = PCA(CODE).fit(X_train)
    restored = {"PCA": pca.inverse_transform(pca.transform(X_test))}
    for name, model in {
        "linear autoencoder": Autoencoder(latent_dim=CODE, depth=0, epochs=EPOCHS, random_state=0),
        "deep autoencoder": DeepAutoencoder(latent_dim=CODE, epochs=EPOCHS, random_state=0),
    }.items():
        restored[name] = model.fit(X_train).reconstruct(X_test)

    print(f"squared error per digit, {CODE} numbers each:")
    for name, output in restored.items():
        print(f"  {name:<20} {((X_test - output) ** 2).sum(1).mean():.3f}")


if __name__ == "__main__":
    main()
