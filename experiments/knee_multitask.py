"""Knee X-rays: KL grade and later joint space loss (JSL) at once, two heads on one trunk.

A knee whose grade or JSL is unknown teaches the other head alone. RUN/kl and RUN/jsl hold a run
for each head, to serve and to compare. As published, the best validation AUC of JSL chooses the
epoch; with keep=grade the least error of grades does. Judged and kept are running means of weights.

    python experiments/knee_multitask.py                      # sample data, CPU, 2 min
    python experiments/knee_multitask.py --data data/knee     # your JSL.csv and complete_images/
    python experiments/knee_multitask.py --weights RUN        # from the trunk of a run on grades
    python experiments/knee_multitask.py --set head=ordinal --set jsl_weight=2 --set keep=grade

Results: experiments/README.md.
"""

from functools import partial

import keras

from medkeras.evaluation import heads_report, heads_scores
from medkeras.losses_heads import compiled_heads
from medkeras.models import fusion, transfer
from medkeras.phantoms import knee_xray
from medkeras.preparation import augment, heads, pipeline, splits
from medkeras.readers import knee
from medkeras.training import fit, lineage, runs, tune

PUBLISHED = dict(backbone="vgg16", rate=1e-4), 20  # epochs
SMALL = dict(backbone="densenet_tiny", rate=3e-3), 12
KEEP = {"jsl": dict(monitor="val_auc_jsl", mode="max"), "grade": dict(monitor="val_grade_error")}
RULES = dict(patience=None, plateau_patience=None, decay=0.5, decay_every=5)


def build(hp, backbone, rate, **given):
    backbone = hp.Choice("backbone", list(transfer.BACKBONES), default=backbone)
    ordinal = hp.Choice("head", ["softmax", "ordinal"]) == "ordinal"
    dropout = hp.Float("dropout", 0.0, 0.6, default=0.0)
    model = fusion.multitask(backbone=backbone, ordinal=ordinal, dropout=dropout, **given)
    rate = hp.Float("learning_rate", 1e-6, 1e-2, sampling="log", default=rate)
    weights = [hp.Float(f"{head}_weight", 0.0, 4.0, default=1.0) for head in fusion.HEADS]
    return compiled_heads(model, keras.optimizers.Adam(rate, use_ema=True), *weights)


def main(run):
    shape = run.image_shape(224, 224, 1)
    table = splits.by_patient(run.read(knee.read), **run.splitting)
    table = lineage.follow(run.weights, table)
    data = heads.both(pipeline.images(table, shape, 16, augment=augment.knee(), **run.loading))

    start, epochs = SMALL if run.sample else PUBLISHED
    rules = RULES | KEEP[run.choice("keep", KEEP, "jsl")] | dict(epochs=epochs)
    bound = partial(build, **start, image_shape=shape, weights=run.weights)
    model = bound(tune.choose(bound, data, run, **rules))
    fit.fit(model, data, run, **rules)
    heads_report.write(run, model, data, heads_scores.each(model, data, run))


if __name__ == "__main__":
    sample = partial(knee_xray.write, patients=600, films=None, unfollowed=0.2)
    runs.start(main, __doc__, data="data/knee", sample=sample, sample_size=64, several=False)
