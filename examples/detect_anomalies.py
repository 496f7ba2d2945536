"""Tumour cells unlike benign ones: scores, p-values with a kept promise, and the features that tell."""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from diabolo.applications import AnomalyDetector

data = load_breast_cancer(as_frame=True)
benign, malignant = data.data[data.target == 1], data.data[data.target == 0]
known, fresh = benign[:250], benign[250:]

detector = AnomalyDetector(false_alarm_rate=0.05, random_state=0).fit(known)
normal, strange = -detector.score_samples(fresh), -detector.score_samples(malignant)
labels = np.repeat([0, 1], [len(normal), len(strange)])
print(f"area under the ROC curve: {roc_auc_score(labels, np.concatenate([normal, strange])):.3f}")
print(f"flagged: {(detector.predict(fresh) < 0).mean():.1%} of benign, promised 5%; ", end="")
print(f"{(detector.predict(malignant) < 0).mean():.1%} of malignant")

parts = detector.explain(malignant[:1])[0]
told = ", ".join(f"{data.feature_names[j]} {parts[j] / parts.sum():.0%}" for j in np.argsort(-parts)[:3])
print(f"the first malignant row: p = {detector.p_value(malignant[:1])[0]:.3f}; {told}")
