"""The report of a run: one HTML file that opens offline, and a model card beside it.

Neither names a patient, nor a file: paths often hold the patient's number. A picture is named by
its line in `predictions.csv`, which stays with the run.
"""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from medkeras.evaluation import card, diagram, metrics, overlays, plots, sizes
from medkeras.evaluation.pages import rendered
from medkeras.files import atomic
from medkeras.preparation import control, copies, splits

TEMPLATE = Path(__file__).with_name("report.html.j2")
LOOKED_UP = 50
MISTAKES = 12


def write(run, model, data, scores, cams=None) -> Path:
    """Writes `report.html` and `README.md` into the run folder.

    Args:
        run: `.folder`, `.experiment`, `.sample`; what else the report says is read from the
            files in the folder, and a part without its file is left out.
        model: the model, for the diagram.
        data: `pipeline.Data`.
        scores: from `evaluate.evaluate`.
        cams: from `explain.grad_cam`, or None.

    Returns:
        Path of the report.
    """
    context = _context(run, model, data, scores, cams)
    path = run.folder / "report.html"
    atomic.write_text(path, rendered(TEMPLATE, context))
    atomic.write_text(run.folder / "README.md", card.text(run, data, scores, context))
    return path


def _context(run, model, data, scores, cams):
    synthetic = bool(run.sample)
    environment = _json(run.folder / "environment.json")
    described = environment.get("data", {})
    table = data.table
    return {
        "experiment": run.experiment,
        "folder": Path(run.folder).name,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "synthetic": synthetic,
        "null": control.NULLS.get(described.get("null_control")),
        "task": scores.task,
        "classes": scores.classes,
        "metrics": scores.metrics,
        "verdict": verdict(scores, data),
        "data": {
            "root": described.get("root_name", Path(run.data).name),
            "counts": counts(table),
            "alone": bool((table["patient"].astype(str) == table["path"].astype(str)).all()),
            "skipped": _tally(described.get("skipped") or table.attrs.get("skipped") or []),
            "notes": _tally(described.get("notes") or table.attrs.get("notes") or []),
            "image_shape": " × ".join(map(str, data.image_shape)),
        },
        "size": _sizes(table, synthetic),
        "figures": _figures(run, data, scores, synthetic),
        "mistakes": _mistakes(data, scores, synthetic),
        "gallery": cams.items if cams else [],
        "cams": cams,
        "diagram": Markup(diagram.svg(model)),
        "model": _model(model, environment),
        "hyperparameters": _hyperparameters(run.folder),
        "sweep": _sweep(run.folder),
        "environment": environment,
    }


def verdict(scores, data) -> dict:
    """Says in plain words what the test numbers mean beside the majority baseline."""
    found, label = scores.metrics["accuracy"], data.train.labels
    common = scores.classes[int(np.bincount(label, minlength=len(scores.classes)).argmax())]
    baseline = scores.metrics["majority_accuracy"]
    if found["value"] is None or baseline is None:
        words = "No comparison with a baseline can be made here."
    elif found["low"] is None:
        words = (
            "Too few patients in the test part for an interval: read this as a trial of the method."
        )
    elif found["low"] > baseline:
        words = "The whole interval lies above that baseline."
    elif found["high"] < baseline:
        words = "That is worse than the baseline."
    else:
        words = "The interval includes the baseline: no gain over it is shown."
    return {"common": common, "baseline": baseline, "words": words}


def counts(table) -> dict:
    """Counts pictures and patients per class and part."""
    parts = [part for part in splits.SIDES if part in set(table["split"])]
    # A block for each class, a line for each side and for all of them.
    blocks = splits.counts(table).to_numpy().reshape(-1, len(splits.SIDES) + 1, 4)
    rows = [
        {
            "name": block[0][0],
            "cells": [(n, patients) for _, side, n, patients in block if side in (*parts, "all")],
        }
        for block in blocks
    ]
    names = {"train": "training", "val": "validation", "test": "test"}
    return {"parts": [names[part] for part in parts] + ["all"], "rows": rows}


def _tally(problems):
    """Counts problems by reason; paths stay out, which often name the patient."""
    reasons = [one["reason"] if isinstance(one, dict) else str(one) for one in problems]
    return Counter(map(copies.unnamed, reasons)).most_common()


def _figures(run, data, scores, synthetic):
    test = scores.predictions[scores.predictions["split"] == "test"]
    labels, chances, names = metrics.arrays(test)
    figures = {"counts": plots.class_counts(data.table, synthetic)}
    picked = np.unique(np.linspace(0, len(data.train) - 1, LOOKED_UP).astype(int))
    titles = data.train.table["class"].iloc[picked]
    figures["grid"] = plots.grid(data.train.pictures(picked), list(titles), synthetic=synthetic)
    history = run.folder / "history.csv"
    if history.is_file() and len(records := pd.read_csv(history)):
        figures["history"] = plots.learning_curves(records, synthetic)
    if len(test):
        patients = test["patient"].to_numpy()
        figures["roc"] = plots.roc(labels, chances, names, patients, run.seed, synthetic)
        figures["pr"] = plots.precision_recall(labels, chances, names, synthetic)
        pair = metrics.confidence(labels, chances, scores.task)
        figures["calibration"] = plots.reliability(*pair, synthetic=synthetic)
        if scores.task != "multilabel":
            truth, answers, _ = _decisions(labels, chances, scores.task)
            figures["confusion"] = plots.confusion(truth, answers, scores.classes, synthetic)
    return figures


def _decisions(labels, chances, task):
    """Class numbers, answers and the answers' probabilities of exclusive classes."""
    if task == "binary":
        labels, chances = np.hstack([1 - labels, labels]), np.hstack([1 - chances, chances])
    return labels.argmax(axis=1), chances.argmax(axis=1), chances.max(axis=1)


def _mistakes(data, scores, synthetic):
    test = scores.predictions[scores.predictions["split"] == "test"]
    if scores.task == "multilabel" or test.empty:
        return []
    labels, chances, _ = metrics.arrays(test)
    truth, answers, certainty = _decisions(labels, chances, scores.task)
    order = np.argsort(-certainty, kind="stable")
    wrong = order[truth[order] != answers[order]][:MISTAKES]
    return [
        {
            "png": overlays.thumbnail(data.test.pictures(np.array([row]))[0], synthetic),
            "line": int(test.index[row]) + 2,  # of predictions.csv, whose first line is the head
            "true": scores.classes[truth[row]],
            "predicted": scores.classes[answers[row]],
            "probability": certainty[row],
        }
        for row in wrong
    ]


def _sizes(table, synthetic):
    if not {"width", "height"} <= set(table.columns):
        return None
    found = sizes.study(table["width"], table["height"])
    drawn = plots.sizes(
        table["width"], table["height"], found["centres"], found["recommended"], synthetic
    )
    return found | {"figure": drawn, "centres": found["centres"].round().astype(int).tolist()}


def _model(model, environment):
    total = model.count_params()
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return {
        "name": model.name,
        "function": (getattr(model, "recipe", None) or {}).get("function"),
        "layers": len(model.layers),
        "parameters": total,
        "trainable": trainable,
        "weights": environment.get("weights_origin") or getattr(model, "weights_origin", None),
    }


def _hyperparameters(folder):
    found = _json(folder / "hyperparameters.json")
    return found.get("values", found)


def _sweep(folder):
    path = folder / "tuning" / "trials.csv"
    if not path.is_file():
        return None
    trials = pd.read_csv(path)
    values = _hyperparameters(folder)
    searched = [name for name in trials.columns if name in values]
    won = np.ones(len(trials), dtype=bool) if searched else np.zeros(len(trials), dtype=bool)
    for name in searched:
        won &= [_same(cell, values[name]) for cell in trials[name]]
    rows = trials.astype(object).where(trials.notna(), None).to_numpy().tolist()
    return {
        "columns": list(trials.columns),
        "rows": [
            {"cells": ["" if c is None else _plain(c) for c in row], "won": bool(one)}
            for row, one in zip(rows, won, strict=True)
        ],
        "failed": int((~trials["status"].isin(["COMPLETED", "completed"])).sum()),
    }


def _same(cell, value):
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = pd.to_numeric(cell, errors="coerce")
        return bool(np.isclose(number, value, rtol=1e-9, atol=0))
    return str(cell) == str(value)


def _plain(cell):
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _json(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
