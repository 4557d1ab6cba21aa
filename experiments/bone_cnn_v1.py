"""Bone X-ray, healthy or fractured, with the first custom CNN: five convolutions.

Trained from scratch with Adam; one cut of the learning rate at most.

    python experiments/bone_cnn_v1.py                         # sample data, CPU, 1 min
    python experiments/bone_cnn_v1.py --data data/bone        # your X-rays
    python experiments/bone_cnn_v1.py --tune 10               # KerasTuner sweep first
    python experiments/bone_cnn_v1.py --set learning_rate=1e-4

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
# Published: patience 10 and 3 at 400 steps an epoch; a small set has fewer steps an epoch.
RULES = dict(epochs=100, patience=20, plateau_patience=8, class_weight="balanced")


def build(hp, image_shape, outputs):
    dropout = hp.Float("dropout", 0.0, 0.6, step=0.1, default=0.4)
    model = custom_cnn.v1(image_shape, outputs, dropout=dropout)
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
    two = partial(phantom.write, classes=("healthy", "fractured"), patients=480, difficulty=0.0)
    runs.start(main, __doc__, data="data/bone", sample=two)
