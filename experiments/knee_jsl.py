"""Knee X-rays: will the joint lose space within four years? From the picture alone.

RUN is one of knee_kl_grade: from these labels alone a network learns next to nothing. Whom it was
trained on is trained on again. First the head learns, on the features of the frozen trunk, which
are computed once; then all layers but the batch norms, unless frozen=true.

    python experiments/knee_jsl.py --weights RUN                    # sample data, CPU, 1 min
    python experiments/knee_jsl.py --weights RUN --data data/knee   # your JSL.csv, complete_images/

Knees whose outcome is unknown are left out, and counted. Results: experiments/README.md.
"""

from dataclasses import replace
from functools import partial

import keras

from medkeras.evaluation import evaluate, explain, report
from medkeras.losses import compiled
from medkeras.models import transfer
from medkeras.phantoms import knee_xray
from medkeras.preparation import augment, pipeline, splits
from medkeras.readers import knee, tables
from medkeras.training import fit, lineage, runs, tune

# Published: half of the knees without loss were dropped; here both classes weigh the same.
RULES = dict(monitor="val_auc", mode="max", patience=None, class_weight="balanced")
HEAD = dict(epochs=10, plateau_patience=None, decay=0.8, decay_every=3, **RULES)
ALL = dict(plateau_patience=None, decay=0.5, decay_every=5, **RULES)


def build(hp, backbone, **given):
    backbone = hp.Choice("backbone", list(transfer.BACKBONES), default=backbone)
    dropout = hp.Float("dropout", 0.0, 0.6, default=0.0)
    model = transfer.backbone(backbone, classes=1, dropout=dropout, **given)
    rate = hp.Float("head_learning_rate", 1e-4, 1e-1, sampling="log", default=1e-3)
    return compiled(model, keras.optimizers.Adam(rate), curves=True)


def main(run):
    shape, frozen = run.image_shape(224, 224, 1), run.choice("frozen", ["true", "false"], "false")
    table = lineage.follow(run.weights, splits.by_patient(run.read(knee.read), **run.splitting))
    given = dict(augment=augment.knee(), views=4, **run.loading)
    data = pipeline.images(tables.single(table, "jsl"), shape, 16, **given)

    small, epochs = ("densenet_tiny", 5) if run.sample else ("vgg16", 15)
    bound = partial(build, backbone=small, image_shape=shape, weights=run.weights)
    model = bound(tune.choose(bound, data, run, **HEAD))
    fit.fit(model, data, run, **HEAD)
    if frozen == "false":
        compiled(fit.unfreeze(model), keras.optimizers.Adam(5e-5), curves=True)
        fit.fit(model, replace(data, views=None), run, epochs=epochs, **ALL)

    scores = evaluate.evaluate(model, data, run)
    report.write(run, model, data, scores, explain.grad_cam(model, data, run, saliency=True))


if __name__ == "__main__":
    few = partial(knee_xray.write, patients=600, films=None)
    runs.start(main, __doc__, data="data/knee", sample=few, sample_size=64)
