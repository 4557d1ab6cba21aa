"""Bone X-ray triage, healthy / fractured / beyond repair, with InceptionV3.

Three heads on the frozen ImageNet backbone (plain, with L2, dense + batch norm with L2),
then its last block fine-tuned. `published_head` cuts at mixed7 and flattens.

    python experiments/bone_inception.py                     # sample data, CPU, 2 min
    python experiments/bone_inception.py --data data/bone    # your X-rays
    python experiments/bone_inception.py --set head=plain --set published_head=true

Results: experiments/README.md.
"""

from functools import partial

import keras

from medkeras.evaluation import evaluate, explain, report
from medkeras.losses import compiled
from medkeras.models import transfer
from medkeras.phantoms import bone as phantom
from medkeras.preparation import augment, pipeline, splits
from medkeras.readers import bone
from medkeras.training import fit, runs, tune

BATCH_SIZE = 32
RULES = dict(epochs=40, patience=8, class_weight="balanced")
HEADS = {"plain": {}, "l2": {"l2": 1e-6}, "dense": {"l2": 1e-6, "units": 1024, "dropout": 0.4}}


def build(hp, image_shape, outputs, weights):
    head = HEADS[hp.Choice("head", list(HEADS), default="dense")]
    if hp.Boolean("published_head", default=False):
        head = {**head, "cut": "mixed7", "pooling": "flatten"}
    model = transfer.inception_v3(image_shape, outputs, weights=weights, **head)
    return compiled(model, keras.optimizers.Adam(hp.Choice("learning_rate", [1e-3, 1e-4])))


def main(run):
    image_shape = run.image_shape(224, 224, 1)
    table = splits.by_patient(run.read(bone.read), **run.splitting)
    moves = augment.radiograph(rotation=30)
    data = pipeline.images(table, image_shape, BATCH_SIZE, augment=moves, views=8, **run.loading)

    bound = partial(build, image_shape=image_shape, outputs=data.outputs, weights=run.weights)
    hp = tune.choose(bound, data, run, **RULES)
    model = bound(hp)
    fit.fit(model, data, run, **RULES)

    fit.unfreeze(model, "mixed6" if hp.get("published_head") else "mixed9")
    fit.fit(compiled(model, keras.optimizers.Adam(1e-4)), data, run, **RULES)

    scores = evaluate.evaluate(model, data, run)
    cams = explain.grad_cam(model, data, run)
    report.write(run, model, data, scores, cams)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/bone", sample=phantom.write)
