"""Sparse codes learned without labels, then a linear classifier on the few rows that have one."""

import os

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from diabolo import SparseAutoencoder

EPOCHS = int(os.environ.get("EPOCHS", "40"))
DRAWS = 10


def main() -> None:
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16.0, y, stratify=y, random_state=0)

    model = SparseAutoencoder(
        latent="topk:10", latent_dim=512, corruption="masking:0.25", epochs=EPOCHS, random_state=0
    )
    model.fit(X_train)  # all rows, no labels
    found = model.diagnostics(X_test)
    print(
        f"{found['code_size']} units, {found['dead_units']} dead, {found['active_share']:.1%} active per row"
    )

    features = {
        "pixels": (X_train, X_test),
        "sparse codes": (model.transform(X_train), model.transform(X_test)),
    }
    print(f"accuracy of logistic regression, mean of {DRAWS} draws of the labelled rows:")
    for labelled in (50, 100, 200):
        means = []
        for name, (train, test) in features.items():
            scores = []
            for draw in range(DRAWS):
                rows = np.random.default_rng(draw).permutation(len(train))[:labelled]
                classifier = LogisticRegression(max_iter=1000).fit(train[rows], y_train[rows])
                scores.append(classifier.score(test, y_test))
            means.append(f"{name} {np.mean(scores):.3f}")
        print(f"  {labelled:>3} labels: {', '.join(means)}")


if __name__ == "__main__":
    main()
