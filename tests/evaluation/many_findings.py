"""Findings with uncertain and blank labels in a small data set, and what a model might say."""

import numpy as np
import pandas as pd

from medkeras.evaluation.numbers import metrics
from medkeras.preparation import pipeline, uncertainty

FINDINGS = ("Edema", "Fracture", "Atelectasis", "Pneumonia")
SCORED = ("Atelectasis", "Edema")
SHAPE, ROWS = (24, 24, 1), 160


def labelled(seed=0):
    """A split table with uncertain and blank labels; two pictures a study, two studies a patient.

    Studies are numbered anew for each patient. No fracture is there to be learned from.
    """
    rng, number = np.random.default_rng(seed), np.arange(ROWS)
    patient = number // 4
    table = pd.DataFrame(
        {
            "path": [f"train/p{p:03d}/{n}.png" for n, p in zip(number, patient)],
            "patient": [f"p{p:03d}" for p in patient],
            "study": [f"study{1 + n // 2 % 2}" for n in number],
            "split": [("train", "val", "test", "test")[p % 4] for p in patient],
        }
    )
    for name in FINDINGS:
        drawn = np.repeat(rng.random(ROWS // 2), 2)
        table[name] = np.select([drawn < 0.4, drawn < 0.7], [1.0, 0.0], np.nan)
        table[f"uncertain {name}"] = (drawn > 0.8) & (name != "Pneumonia")
    table.loc[table["split"] == "train", "Fracture"] = 0.0
    table.loc[table["split"] == "train", "uncertain Fracture"] = False
    table.attrs["labels"] = list(FINDINGS)
    return table


def in_memory(word="ignore"):
    table = uncertainty.blanks_as(labelled(), 0.0)
    stored = np.random.default_rng(1).integers(0, 255, (ROWS, *SHAPE), dtype=np.uint8)
    policy = uncertainty.Policy(dict.fromkeys(FINDINGS, word))
    return pipeline.Data(table, stored, "key", 40, findings=FINDINGS, policy=policy)


def predicted(seed=2, data=None):
    """A table of predictions as `predictions.csv` has it, its logits a little right."""
    data, parts = data or in_memory(), []
    rng = np.random.default_rng(seed)
    for part in (data.val, data.test):
        table = part.table[["path", "patient"]].assign(split=part.name)
        for k, name in enumerate(FINDINGS):
            label = part.labels[:, k].astype(float)
            logit = rng.normal(size=len(part)) + np.nan_to_num(2 * label - 1)
            table[f"label_{name}"], table[f"logit_{name}"] = label, logit
            table[f"probability_{name}"] = metrics.probabilities(logit, "multilabel")
        marks = {f"uncertain_{name}": part.uncertain[:, k] for k, name in enumerate(FINDINGS[:3])}
        parts.append(table.assign(study=part.table["study"], **marks))
    return pd.concat(parts, ignore_index=True)
