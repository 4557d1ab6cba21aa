"""Run folders as training and evaluation leave them, written without training anything."""

import json

import numpy as np
import pandas as pd

from medkeras.evaluation.numbers import metrics

STAGE = {"monitor": "val_loss", "mode": "min", "min_delta": 1e-4, "epochs": 6, "optimizer": {}}


def exams(findings=("acl",), count=60):
    """As many validation as test exams with their labels, each of a patient of its own."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "path": [f"{n:04d}" for n in range(2 * count)],
            "patient": [f"p{n:04d}" for n in range(2 * count)],
            "split": np.repeat(["val", "test"], count),
        }
    )
    for finding in findings:
        table[f"label_{finding}"] = rng.permutation(np.arange(2 * count) % 2)
    return table


def predicted(table, val=1.0, test=1.0, seed=0):
    """Adds logits: the label times a strength, which differs between the parts, and noise."""
    rng, table = np.random.default_rng(seed), table.copy()
    strength = np.where(table["split"] == "val", val, test)
    for finding in metrics.class_names(table):
        logit = strength * (2 * table[f"label_{finding}"] - 1) + rng.normal(size=len(table))
        table[f"logit_{finding}"] = logit.round(6)
        table[f"probability_{finding}"] = (1 / (1 + np.exp(-logit))).round(9)
    return table


def history(epochs=6, best=4, labels=(), auc=0.8):
    """A history whose validation loss is lowest in epoch `best`."""
    epoch = np.arange(1, epochs + 1)
    table = pd.DataFrame({"stage": 1, "epoch": epoch, "learning_rate": 1e-5})
    table["loss"] = 0.7 / epoch**0.5
    for k, name in enumerate([f"auc_{label}" for label in labels] or ["auc"]):
        table[name] = 1 - (1 - auc) / epoch**0.5 - 0.05 * k
        table[f"val_{name}"] = auc - 0.01 * abs(epoch - best) - 0.07 * k
    table["val_loss"] = 0.4 + 0.05 * abs(epoch - best)
    return table


def write(
    folder,
    predictions=None,
    *,
    epochs=None,
    values=None,
    synthetic=False,
    status="finished",
    **judged,
):
    """Writes a run folder; without predictions it is one that was not evaluated."""
    folder.mkdir(parents=True)
    number = len(list(folder.parent.iterdir()))
    state = {"status": status, "started": f"2025-01-01T00:{number:02d}:00Z"}
    files = {
        "status": state,
        "environment": {"seed": 0, "data": {"synthetic": synthetic}},
        "hyperparameters": {"values": values or {}, "batch_size": 1, "stage_1": STAGE},
    }
    if predictions is not None:
        task = "binary" if len(metrics.class_names(predictions)) == 1 else "multilabel"
        files["metrics"] = metrics.measured(predictions, task, resamples=50, **judged)
        predictions.to_csv(folder / "predictions.csv", index=False, lineterminator="\n")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    table = history() if epochs is None else epochs
    table.to_csv(folder / "history.csv", index=False, lineterminator="\n")
    return folder
