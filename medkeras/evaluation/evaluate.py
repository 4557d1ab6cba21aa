"""Runs a model over the validation and test pictures and writes down what came out.

predictions.csv   one row per picture: what every number is computed from
metrics.json      the numbers (see `metrics`)
predictor.json    all that prediction needs besides the weights
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from medkeras import errors
from medkeras.evaluation.numbers import metrics
from medkeras.evaluation.numbers.metrics import probabilities
from medkeras.files import atomic
from medkeras.preparation import pipeline

FORMAT = 1
VIEWS = (1, 2, 6)
ZOOMS = (1.0, 0.92, 1.08)
HALVES = (
    "the first {} are positive against negative; the others, uncertain against negative, are not "
    "read"
)


@dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    Args:
        predictions: the table in `predictions.csv`.
        metrics: the content of `metrics.json`.
        task: "binary", "multiclass", "multilabel" or "ordinal".
        classes: names of all classes by number; of two, the second is the positive one.
        views: as in `logits`.
    """

    predictions: pd.DataFrame
    metrics: dict
    task: str
    classes: list[str]
    views: int = 1


def evaluate(model, data, run, task=None, scored=(), positive_from=None, views=1) -> Scores:
    """Predicts the validation and test parts and writes the three files above.

    Args:
        model: functional model, raw pixels to logits. Of findings with a third class, uncertain,
            it has two logits each, of which the first half is read.
        data: `pipeline.Data` or `exams.Data`.
        run: `.folder` is written to; `.seed` seeds the bootstrap.
        task: one of the four; None for that of the data.
        scored: findings whose mean is reported on its own, such as `chexpert.SCORED`.
        positive_from: of grades, the one from which on a picture counts as positive; see
            `metrics.measured`.
        views: as in `logits`; written down, and `serving.predict` answers so too.

    Returns:
        The scores, for the report.

    Raises:
        errors.Diverged: a logit is not finite; names the first such picture.
    """
    classes = list(data.classes)
    outputs = int(model.output_shape[-1])
    task = task or data.task
    named = classes[1:2] if task == "binary" else classes
    expected = data.outputs if task == "multilabel" else len(named)
    if expected != outputs:
        raise ValueError(f"model has {outputs} logits, but {expected} are expected for {classes}")
    parts = [_part(model, part, named, task, views) for part in (data.val, data.test)]
    predictions = pd.concat(parts, ignore_index=True)
    majority, untrained = None, []
    if task == "multilabel":
        predictions = predictions.assign(**_beside(data))
        untrained = data.untrained
    else:
        majority = int(np.bincount(data.train.labels, minlength=len(classes)).argmax())
    learned = {"scored": scored, "untrained": untrained, "positive_from": positive_from}
    found = metrics.measured(predictions, task, majority, run.seed, **learned)

    atomic.write_text(run.folder / "predictions.csv", csv_text(predictions))
    atomic.write_json(run.folder / "metrics.json", found)
    atomic.write_json(run.folder / "predictor.json", predictor(model, data, task, views))
    return Scores(predictions, found, task, classes, views)


def predictor(model, data, task, views=1) -> dict:
    """Describes what prediction needs: recipe of the model, labels, preprocessing."""
    classes = list(data.classes)
    described = {
        "format": FORMAT,
        "task": task,
        "labels": classes,
        "positive": classes[1] if task == "binary" else None,
        "image_shape": list(data.image_shape),
        "inputs": [tensor.name for tensor in model.inputs],
        "preprocessing": data.preprocessing
        | {"scale": "pixels 0..255 as float32; the model itself rescales"},
        "views": views,
        "calibration": None,
        "thresholds": None if task in metrics.EXCLUSIVE else dict.fromkeys(_named(data, task), 0.5),
        "recipe": getattr(model, "recipe", None),
        "feature_map": getattr(model, "feature_map", None),
    }
    if "risk" in described["inputs"]:
        described["risks"] = data.risks.config()
    if task == "multilabel":
        described["untrained"] = data.untrained
        if data.outputs > len(classes):
            described["logits"] = HALVES.format(len(classes))
    return described


def logits(model, batches, views=1) -> np.ndarray:
    """Runs batches through a model, in order and without dropout.

    Args:
        model: functional model; any dtype policy.
        batches: iterable of lists of inputs: pictures or slices uint8, whole numbers int32,
            other measures, such as risk factors, float32.
        views: of each picture that are asked about, whose mean is the answer: 1, as it is; 2, with
            its mirror image, left to right, for what has no side of its own; 6, both of these at
            the sizes `ZOOMS`. It costs as many times the time.

    Returns:
        float32 (n, k); (0, k) without pictures.
    """
    if views not in VIEWS:
        raise ValueError(f"views={views}: expected one of {', '.join(map(str, VIEWS))}")
    found = []
    for batch in batches:
        arrays = [np.ascontiguousarray(array) for array in batch]
        forward = _forward(model, tuple(array.dtype.name for array in arrays), views)
        found.append(forward(*arrays).numpy())
    return np.concatenate(found) if found else np.empty((0, model.output_shape[-1]), np.float32)


@lru_cache(maxsize=1)  # tracing a large backbone takes seconds; every part asks for it
def _forward(model, types, views):
    import tensorflow as tf

    signature = [
        tf.TensorSpec(tensor.shape, kind) for tensor, kind in zip(model.inputs, types, strict=True)
    ]

    @tf.function(input_signature=signature)
    def forward(*inputs):
        answers = []
        for zoom in ZOOMS if views == 6 else (1.0,):
            for step in (1, -1) if views > 1 else (1,):
                moved = [
                    _zoomed(one, zoom)[:, :, ::step] if len(one.shape) == 4 else one
                    for one in inputs
                ]
                answers.append(model(pipeline.as_tensors([moved])[0], training=False))
        return tf.cast(sum(answers) / len(answers), tf.float32)

    return forward


def _zoomed(pictures, zoom):
    """Magnifies pictures about their centre; beyond the border the nearest pixel goes on."""
    from keras import ops

    if zoom == 1:
        return pictures
    height, width = pictures.shape[1:3]
    right, down = ((side - 1) / 2 * (1 - 1 / zoom) for side in (width, height))
    matrix = ops.tile([[1 / zoom, 0, right, 0, 1 / zoom, down, 0, 0]], (ops.shape(pictures)[0], 1))
    pictures = ops.cast(pictures, "float32")
    return ops.image.affine_transform(pictures, matrix, "bilinear", "nearest")


def csv_text(predictions) -> str:
    """Formats a table of predictions: the same numbers give the same bytes."""
    return predictions.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def as_written(numbers) -> np.ndarray:
    """Rounds numbers to the nine digits that `predictions.csv` has of them, float64."""
    return np.array([float(f"{number:.9g}") for number in numbers], dtype=np.float64)


def _named(data, task):
    return list(data.classes)[1:2] if task == "binary" else list(data.classes)


def _part(model, part, named, task, views):
    table = part.table
    values = logits(model, part.batches(), views)
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise errors.Diverged(
            f"the model's answer for {table['path'].iloc[broken[0]]} is not a finite number "
            f"({len(broken)} of {len(values)} {part.name} pictures): lower the learning rate"
        )
    known = part.labels
    chances = probabilities(values, task)
    columns = {
        "path": table["path"].to_numpy(),
        "patient": table["patient"].to_numpy(),
        "split": part.name,
    }
    for k, name in enumerate(named):
        columns[f"label_{name}"] = _label(known, k, task)
        # Rounded as in the file, so that every number can be recomputed from it exactly.
        columns[f"logit_{name}"] = as_written(values[:, k])
        columns[f"probability_{name}"] = as_written(chances[:, k])
    return pd.DataFrame(columns)


def _beside(data):
    """What reports say besides the labels: whose pictures belong together, what is uncertain."""
    parts, columns = (data.val, data.test), {}
    if "study" in data.table:
        columns["study"] = np.concatenate([part.table["study"] for part in parts])
    uncertain = np.concatenate([part.uncertain for part in parts])
    for k in np.flatnonzero(uncertain.any(axis=0)):
        columns[f"uncertain_{data.findings[k]}"] = uncertain[:, k].astype(int)
    return columns


def _label(known, k, task):
    """Labels of one class: 1 and 0; of a finding also NaN, where it is unknown."""
    if task == "multilabel":
        return known[:, k].astype(np.float64)
    return (known == (1 if task == "binary" else k)).astype(int)
