"""The figures of a report: data, training, and what the test part shows."""

import numpy as np
import pandas as pd

from medkeras.evaluation import mistakes
from medkeras.evaluation.figures import curves, forest, plots
from medkeras.evaluation.numbers import metrics
from medkeras.evaluation.writing import findings

LOOKED_UP = 50


def drawn(run, data, scores, synthetic) -> dict[str, bytes]:
    """Draws the figures of a report, PNG bytes by name; one that has no data is left out.

    Args:
        run: `.folder`, `.seed`.
        data: `pipeline.Data`.
        scores: from `evaluate.evaluate`.
        synthetic: whether the pictures are phantoms.
    """
    test = scores.predictions[scores.predictions["split"] == "test"]
    labels, chances, names = metrics.arrays(test)
    figures = {"counts": _counted(data, synthetic)}
    picked = np.unique(np.linspace(0, len(data.train) - 1, LOOKED_UP).astype(int))
    titles = _titles(data.train.table.iloc[picked], data.findings)
    figures["grid"] = plots.grid(data.train.pictures(picked), titles, synthetic=synthetic)
    history = run.folder / "history.csv"
    if history.is_file() and len(records := pd.read_csv(history)):
        figures["history"] = curves.learned(records, synthetic, data.findings)
    if len(test):
        # Fourteen curves hide each other.
        few = findings.scored(scores.metrics) or names
        kept = [names.index(name) for name in few]
        curve, patients = (labels[:, kept], chances[:, kept], few), test["patient"].to_numpy()
        figures["roc"] = plots.roc(*curve, patients, run.seed, synthetic)
        figures["pr"] = plots.precision_recall(*curve, synthetic)
        pair = metrics.confidence(labels, chances, scores.task)
        figures["calibration"] = plots.reliability(*pair, synthetic=synthetic)
        if scores.task == "multilabel":
            found, order = scores.metrics, findings.ordered(scores.metrics)
            figures["forest"] = forest.aucs(found, order, findings.scored(found), synthetic)
        else:
            truth, answers, _ = mistakes.decisions(labels, chances, scores.task)
            figures["confusion"] = plots.confusion(truth, answers, scores.classes, synthetic)
    return figures


def _counted(data, synthetic):
    if data.findings:
        return plots.finding_counts(data.table, data.findings, synthetic, data.unit)
    return plots.class_counts(data.table, synthetic, data.unit)


def _titles(table, findings):
    """Returns the class of each row, or a list of its findings."""
    if not findings:
        return list(table["class"])
    rows = table[list(findings)].astype(float)
    return [
        "unknown" if row.isna().all() else list(row.index[row == 1]) for _, row in rows.iterrows()
    ]
