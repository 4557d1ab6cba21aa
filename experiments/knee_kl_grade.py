"""Knee X-rays: which Kellgren-Lawrence grade, 0 to 4? By softmax, or a head that knows their order.

First the head on frozen features, which are computed once; then the whole network but its batch
norms. Kept is the running mean of the weights; asked are a knee and its mirror image, three sizes.

    python experiments/knee_kl_grade.py                      # sample data, CPU, 2 min
    python experiments/knee_kl_grade.py --data data/knee     # your knees: class folders, OAI table
    python experiments/knee_kl_grade.py --set head=ordinal --set backbone=mobilenet_v2

Results: experiments/README.md.
"""

from dataclasses import replace
from functools import partial

import keras

from medkeras.evaluation import evaluate, explain, report
from medkeras.losses_heads import compiled_grades
from medkeras.models import transfer
from medkeras.phantoms import knee_xray
from medkeras.preparation import augment, pipeline, splits
from medkeras.readers import knee
from medkeras.training import fit, optimizers, runs, tune

RULES = dict(class_weight="square_root", patience=None, plateau_patience=None)  # of both stages


def build(hp, backbone, **given):
    backbone = hp.Choice("backbone", list(transfer.BACKBONES), default=backbone)
    ordinal = hp.Choice("head", ["softmax", "ordinal"]) == "ordinal"
    dropout = hp.Float("dropout", 0.0, 0.6, default=0.2)
    model = transfer.backbone(backbone, ordinal=ordinal, dropout=dropout, **given)
    smoothing = hp.Float("smoothing", 0.0, 0.4, default=0.2)  # readers differ by a grade
    rate = hp.Float("head_learning_rate", 1e-4, 1e-1, sampling="log", default=1e-2)
    return compiled_grades(model, keras.optimizers.Adam(rate), smoothing)


def main(run):
    shape, backbone = run.image_shape(224, 224, 1), "densenet_tiny" if run.sample else "vgg16"
    table = splits.by_patient(run.read(knee.grades), test=0.12, validation=0.08, **run.splitting)
    moves = augment.knee(rotation=8, zoom=0.1, brightness=(0.85, 1.15), erase=1 / 3)
    data = pipeline.images(table, shape, 32, augment=moves, views=3, **run.loading)
    given = dict(image_shape=shape, classes=data.outputs, weights=run.weights)
    bound = partial(build, backbone=backbone, frozen=not run.sample, **given)
    hp = tune.choose(bound, data, run, epochs=10, decay=0.8, **RULES)
    model = bound(hp)
    fit.fit(model, data, run, epochs=10, decay=0.8, **RULES)

    rate, epochs = (3e-3, 10) if run.sample else (1.5e-4, 12)  # the sample begins from nothing
    compiled_grades(fit.unfreeze(model), optimizers.averaging(rate, data, epochs), hp["smoothing"])
    fit.fit(model, replace(data, views=None), run, epochs=epochs, **RULES)

    scores = evaluate.evaluate(model, data, run, "ordinal", positive_from=2, views=6)
    cams = explain.grad_cam(model, data, run, saliency=True, views=scores.views)
    report.write(run, model, data, scores, cams)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/knee", sample=knee_xray.write_grades, sample_size=64)
