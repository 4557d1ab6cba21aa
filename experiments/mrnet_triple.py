"""Knee MRI, three findings at once: an AlexNet for each of three planes.

Exams are turned, shifted, stretched and mirrored as a whole, not slice by slice.

    python experiments/mrnet_triple.py                         # sample data, CPU, 3 min
    python experiments/mrnet_triple.py --data data/mrnet       # your exams
    python experiments/mrnet_triple.py --set frozen=true       # features computed once
    python experiments/mrnet_triple.py --set moves=slice       # published: each slice by itself

Results: experiments/README.md.
"""

from functools import partial

import keras

from medkeras.evaluation import evaluate, explain_exams, report
from medkeras.losses import compiled_findings, positive_weights
from medkeras.models import mrnet as models
from medkeras.phantoms import knee_mri
from medkeras.preparation import augment, exams, splits
from medkeras.readers import mrnet
from medkeras.training import fit, runs, tune

BATCH_SIZE = 1  # exam: its slices are batch enough
RULES = dict(patience=10, plateau_patience=3, plateau_factor=0.3, min_learning_rate=1e-9)
SLICES = augment.knee_mri(per_slice=True, flip_sagittal=True)
MOVES = {"exam": augment.knee_mri(), "slice": SLICES, "none": None}


def build(hp, rate, positive_weight, **given):
    slices = hp.Choice("slices", ["max", "mean", "attention"])
    model = models.triple(slices=slices, frozen=hp.Boolean("frozen"), **given)
    rate = hp.Float("learning_rate", 1e-7, 1e-3, sampling="log", default=rate)
    return compiled_findings(model, keras.optimizers.Adam(rate), mrnet.LABELS, positive_weight)


def main(run):
    shape = run.image_shape(256, 256, 1)
    table = splits.by_patient(run.read(mrnet.read), **run.splitting)
    given = {"findings": mrnet.LABELS, "views": 10, **run.loading}
    moves = MOVES[run.choice("moves", list(MOVES), "exam")]
    data = exams.volumes(table, shape, BATCH_SIZE, augment=moves, **given)

    # Published: 1e-5 and 50, for a thousand exams.
    rate, epochs = (3e-4, 10) if run.sample else (1e-5, 50)
    weight = positive_weights(data.train.labels)
    given = {"image_shape": shape, "weights": run.weights, "positive_weight": weight}
    bound = partial(build, rate=rate, **given)
    model = bound(tune.choose(bound, data, run, epochs=epochs, **RULES))
    fit.fit(model, data, run, epochs=epochs, **RULES)

    scores = evaluate.evaluate(model, data, run)
    cams = explain_exams.grad_cam(model, data, run)
    report.write(run, model, data, scores, cams)


if __name__ == "__main__":
    few = partial(knee_mri.sample, exams=260)
    runs.start(main, __doc__, data="data/mrnet", sample=few, sample_size=64)
