"""Runs a locator over the validation and test knees and writes down what came out.

predictions.csv   one row per knee: true and found box in pixels of the film, IoU, confidence
metrics.json      the numbers
predictor.json    all that `serving.crop` needs besides the weights

A knee counts as found where the boxes overlap by an IoU of at least 0.8. The threshold of
confidence is that of the least sure per cent of the validation knees that were found; the test
part has no say in it. What it refuses is tried on pictures without a joint, made of the test
part's (see `preparation.jointless`).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medkeras import errors
from medkeras.evaluation import evaluate as scores
from medkeras.evaluation.numbers import questions, statistics
from medkeras.files import atomic
from medkeras.preparation import halves, jointless

FOUND = 0.8
LEAST_SURE = 0.01  # share of the validation knees
NUMBERS = ("x", "y", "width", "height")


@dataclass(frozen=True)
class Located:
    """What an evaluation found.

    Args:
        predictions: the table in `predictions.csv`.
        metrics: the content of `metrics.json`.
        answers: of the test part as the model gave them, float32 (n, 5).
    """

    predictions: pd.DataFrame
    metrics: dict
    answers: np.ndarray


def evaluate(model, data, run) -> Located:
    """Locates the joints of the validation and test parts and writes the three files above.

    Args:
        model: functional model, raw pixels to (batch, 5), see `models.locator`.
        data: `preparation.boxes.Data`.
        run: `.folder` is written to; `.seed` seeds the bootstrap and the pictures without a joint.

    Returns:
        The numbers, for the report.

    Raises:
        errors.Diverged: an answer is not a finite number.
    """
    answers = {part.name: _answers(model, part) for part in (data.val, data.test)}
    tables = [_table(part, answers[part.name]) for part in (data.val, data.test)]
    threshold = _threshold(tables[0])
    predictions = pd.concat(tables, ignore_index=True)
    metrics = _measured(tables[1], "test", threshold, run.seed) | {
        "validation": _measured(tables[0], "val", threshold, run.seed),
        "baseline": _baseline(data),
        "jointless": _refusals(model, data.test, threshold, run.seed),
    }
    atomic.write_text(run.folder / "predictions.csv", scores.csv_text(predictions))
    atomic.write_json(run.folder / "metrics.json", metrics)
    atomic.write_json(run.folder / "predictor.json", _predictor(model, data, threshold))
    return Located(predictions, metrics, answers["test"])


def _answers(model, part):
    found = scores.logits(model, part.batches())
    if not np.isfinite(found).all():
        raise errors.Diverged(
            f"the model's answer for a {part.name} knee is not a finite number: lower the "
            "learning rate"
        )
    return found


def _table(part, answers):
    rows = part.table
    places = [
        halves.Half(row.side, row.start, row.half_height, row.half_width)
        for row in rows.itertuples()
    ]
    columns = {name: rows[name].to_numpy() for name in ("path", "patient")}
    columns |= {"split": part.name, "side": rows["side"].to_numpy()}
    for kind, boxes in (("true", part.labels), ("found", answers[:, :4])):
        pixels = np.array([half.place(box) for half, box in zip(places, boxes, strict=True)])
        for name, column in zip(NUMBERS, pixels.T, strict=True):
            columns[f"{kind}_{name}"] = column.round(2)
    # Rounded as in the file, so that every number can be recomputed from it exactly.
    columns["iou"] = halves.overlap(part.labels, answers[:, :4]).round(6)
    columns["confidence"] = answers[:, 4].astype(np.float64).round(6)
    return pd.DataFrame(columns)


def _threshold(table):
    """Chooses the threshold from the validation knees; None where none of them was found."""
    found = table["confidence"][table["iou"] >= FOUND]
    return float(np.quantile(found, LEAST_SURE).round(6)) if len(found) else None


def _sure(confidence, threshold):
    return np.zeros(len(confidence), bool) if threshold is None else confidence >= threshold


def _measured(table, split, threshold, seed):
    iou, patients = table["iou"].to_numpy(), table["patient"].astype(str).to_numpy()
    sure, found = _sure(table["confidence"].to_numpy(), threshold), iou >= FOUND
    asked = {
        "iou": questions.overall(iou, share=False),
        "found": questions.overall(found.astype(float)),
        "confident": questions.overall(sure.astype(float)),
        "found_if_confident": questions.overall(found.astype(float), sure),
    }
    dropped = {}
    draws = questions.drawn(asked, patients, statistics.RESAMPLES, seed)
    answered = questions.answered(asked, draws, patients, dropped)
    none = questions.entry(None, len(table), None, "a box has no positives and negatives")
    return {
        "split": split,
        "task": "location",
        "decision": f"IoU >= {FOUND:g}",
        "mean": {"iou": answered["iou"], "auc": none},
        "accuracy": answered["found"],
        "confident": answered["confident"],
        "found_if_confident": answered["found_if_confident"],
        "threshold": threshold,
        "n": len(table),
        "n_patients": len(set(patients)),
        "bootstrap": {
            "unit": "patient",
            "resamples": statistics.RESAMPLES,
            "confidence": statistics.CONFIDENCE,
            "seed": seed,
            "fewest_patients": statistics.FEWEST_PATIENTS,
            "dropped": dropped,
        },
    }


def _baseline(data):
    """What always answering the mean box of the training part would reach on the test part."""
    iou = halves.overlap(data.test.labels, data.train.labels.mean(axis=0))
    return {"iou": float(iou.mean()), "found": float((iou >= FOUND).mean())}


def _refusals(model, part, threshold, seed):
    rng = np.random.default_rng((seed, len(part)))
    counted = {}
    for kind in jointless.KINDS:
        pictures = zip(part.pictures(), part.labels, strict=True)
        made = np.stack([jointless.made(kind, picture, box, rng) for picture, box in pictures])
        batches = np.array_split(made, -(-len(made) // part.data.batch_size))
        found = scores.logits(model, ([batch] for batch in batches))
        counted[kind] = {"n": len(made), "confident": int(_sure(found[:, 4], threshold).sum())}
    return counted


def _predictor(model, data, threshold):
    return {
        "format": scores.FORMAT,
        "task": "location",
        "labels": [*halves.BOX, "confidence"],
        "positive": None,
        "image_shape": list(data.image_shape),
        "inputs": [tensor.name for tensor in model.inputs],
        "preprocessing": data.preprocessing
        | {"scale": "pixels 0..255 as float32; the model itself rescales"},
        "thresholds": {"confidence": threshold},
        "recipe": model.recipe,
    }
