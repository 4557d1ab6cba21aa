"""Bone X-ray, healthy or fractured, with the second custom CNN and its variations.

Batch norms, wider convolutions, and dense layers of four widths; greyscale or repeated
to three channels, as published.

    python experiments/bone_cnn_v2.py                         # sample data, CPU, 2 min
    python experiments/bone_cnn_v2.py --data data/bone        # your X-rays
    python experiments/bone_cnn_v2.py --set variation=M3 --set grey=true
    python experiments/bone_cnn_v2.py --tune 10               # which variation is best?

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
    variation = hp.Choice("variation", list(custom_cnn.V2_VARIATIONS), default="M4")
    recipe = custom_cnn.V2_VARIATIONS[variation]
    channels = 1 if hp.Boolean("grey", default=False) else 3
    model = custom_cnn.v2(image_shape, outputs, units=recipe["units"], channels=channels)
    optimizer = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}
    return compiled(model, optimizer[recipe["optimizer"]](1e-3))


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
    two = partial(phantom.write, classes=("healthy", "fractured"), patients=160, difficulty=0.0)
    runs.start(main, __doc__, data="data/bone", sample=two, sample_size=48)
