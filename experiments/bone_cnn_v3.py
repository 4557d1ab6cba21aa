"""Bone X-ray triage, healthy / fractured / beyond repair, with the third custom CNN.

The second network's convolutions, narrower dense layers, three classes.

    python experiments/bone_cnn_v3.py                         # sample data, CPU, 3 min
    python experiments/bone_cnn_v3.py --data data/bone        # your X-rays
    python experiments/bone_cnn_v3.py --tune 10               # KerasTuner sweep first

Results: experiments/README.md.
"""

from functools import partial

import keras

from medkeras.evaluation import evaluate, explain, report
from medkeras.losses import compiled
from medkeras.models import custom_cnn
from medkeras.phantoms import bone as phantom
from medkeras.preparation import augment, pipeline, splits
from medkeras.readers import bone
from medkeras.training import fit, runs, tune

BATCH_SIZE = 32
RULES = dict(epochs=100, patience=8, min_learning_rate=1e-4, class_weight="balanced")


def build(hp, image_shape, outputs):
    units = {"512-128": (512, 128), "128-64": (128, 64), "64-32": (64, 32)}
    widths = units[hp.Choice("units", list(units), default="512-128")]
    dropout = hp.Float("dropout", 0.0, 0.6, step=0.1, default=0.4)
    model = custom_cnn.v3(image_shape, outputs, units=widths, dropout=dropout)
    learning_rate = hp.Float("learning_rate", 2e-4, 3e-3, sampling="log", default=1e-3)
    return compiled(model, keras.optimizers.Adam(learning_rate))


def main(run):
    image_shape = run.image_shape(224, 224, 1)
    table = splits.by_patient(run.read(bone.read), **run.splitting)
    moves = augment.radiograph(rotation=30)
    data = pipeline.images(table, image_shape, BATCH_SIZE, augment=moves, views=None, **run.loading)

    bound = partial(build, image_shape=image_shape, outputs=data.outputs)
    model = bound(tune.choose(bound, data, run, **RULES))
    fit.fit(model, data, run, **RULES)

    scores = evaluate.evaluate(model, data, run)
    cams = explain.grad_cam(model, data, run)
    report.write(run, model, data, scores, cams)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/bone", sample=phantom.write, sample_size=48)
