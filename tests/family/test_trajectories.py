"""The first epochs of every kind are what they were: a change of a default or of a step shows here.

Stored in trajectories.json; after a change that is meant, `python tests/family/test_trajectories.py`
writes the new ones, and the difference belongs into the commit's message.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

import diabolo
from diabolo.kinds import KINDS

STORED = Path(__file__).with_name("trajectories.json")
EPOCHS = 3


def trajectory(estimator: str) -> list[float]:
    """Return the training loss of each epoch on 600 digits."""
    images = load_digits().images[:600]
    model = getattr(diabolo, estimator)(latent_dim=16, epochs=EPOCHS, random_state=0).fit(images)
    return [float(total) for total in model.history_.column("training_total")]


@pytest.mark.parametrize("estimator", [kind.estimator for kind in KINDS])
def test_the_course_of_training_is_the_stored_one(estimator: str) -> None:
    expected = json.loads(STORED.read_text())[estimator]
    # other processors and libraries sum in another order, which a few dozen steps hardly amplify
    assert trajectory(estimator) == pytest.approx(expected, rel=5e-3)


if __name__ == "__main__":
    found = {kind.estimator: [round(v, 5) for v in trajectory(kind.estimator)] for kind in KINDS}
    STORED.write_text(json.dumps(found, indent=1) + "\n")
