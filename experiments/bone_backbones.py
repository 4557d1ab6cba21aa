"""Bone X-ray triage: which frozen backbone has the best features?

Each backbone behind the same dense + batch-norm head; nothing of them is fine-tuned.

    python experiments/bone_backbones.py                     # sample data, CPU, 1 min
    python experiments/bone_backbones.py --set backbone=resnet50 --data data/bone
    python experiments/bone_backbones.py --tune 20           # let the sweep choose
    python experiments/bone_backbones.py --set backbone=mobilenet_v2 --weights FILE.h5

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


def build(hp, image_shape, outputs, weights):
    model = transfer.backbone(
        hp.Choice("backbone", list(transfer.BACKBONES), default="mobilenet_v2"),
        image_shape,
        outputs,
        units=hp.Choice("units", [0, 256, 512, 1024], default=256),
        dropout=hp.Float("dropout", 0.2, 0.6, step=0.1, default=0.4),
        l2=hp.Float("l2", 1e-7, 1e-4, sampling="log", default=1e-6),
        weights=weights,
    )
    return compiled(model, keras.optimizers.Adam(hp.Choice("learning_rate", [1e-3, 1e-4])))


def main(run):
    image_shape = run.image_shape(224, 224, 1)
    table = splits.by_patient(run.read(bone.read), **run.splitting)
    moves = augment.radiograph(rotation=30)
    data = pipeline.images(table, image_shape, BATCH_SIZE, augment=moves, views=8, **run.loading)

    bound = partial(build, image_shape=image_shape, outputs=data.outputs, weights=run.weights)
    model = bound(tune.choose(bound, data, run, **RULES))
    fit.fit(model, data, run, **RULES)

    scores = evaluate.evaluate(model, data, run)
    cams = explain.grad_cam(model, data, run)
    report.write(run, model, data, scores, cams)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/bone", sample=phantom.write)
