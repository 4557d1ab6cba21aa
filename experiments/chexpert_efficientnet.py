"""Chest X-rays, 14 findings at once, with EfficientNet-B5 at 456 pixels, or a smaller one.

What training makes of uncertain labels is a setting: see chexpert_densenet.py.

    python experiments/chexpert_efficientnet.py                        # sample data, B0, CPU, 3 min
    python experiments/chexpert_efficientnet.py --data data/chexpert   # your X-rays
    python experiments/chexpert_efficientnet.py --set scale=b3 --image-size 300
    python experiments/chexpert_efficientnet.py --set frozen=true      # features computed once

Results: experiments/README.md.
"""

from functools import partial

import keras

from medkeras.evaluation import evaluate, explain_findings, report
from medkeras.losses import compiled_findings
from medkeras.models import transfer
from medkeras.phantoms import chest
from medkeras.preparation import augment, pipeline, splits, uncertainty
from medkeras.readers import chexpert
from medkeras.training import fit, runs, tune

SCALES = [f"b{k}" for k in range(8)]


def build(hp, scale, rate, **given):
    scale, frozen = hp.Choice("scale", SCALES, default=scale), hp.Boolean("frozen")
    dropout = hp.Float("dropout", 0.0, 0.6, step=0.1, default=0.4)
    model = transfer.backbone(f"efficientnet_{scale}", frozen=frozen, dropout=dropout, **given)
    rate = hp.Float("learning_rate", 1e-6, 1e-2, sampling="log", default=rate)
    return compiled_findings(model, keras.optimizers.Adam(rate), chexpert.LABELS)


def main(run):
    shape, size = run.image_shape(456, 456, 1), 16 if run.sample else 6
    table = splits.by_patient(run.read(chexpert.read), **run.splitting)
    table = uncertainty.blanks_as(table, 0.0)  # what a report does not mention is absent
    policy = uncertainty.chosen(run, chexpert.LABELS, "ignore")
    given = dict(findings=chexpert.LABELS, policy=policy, **run.loading)
    data = pipeline.images(table, shape, size, augment=augment.chest(), views=8, **given)

    # Published: 1e-3, halved after every epoch of some 30,000 steps.
    scale, decay, epochs = ("b0", 1.0, 12) if run.sample else ("b5", 0.5, 12)
    rules = dict(epochs=epochs, patience=None, plateau_patience=None, decay=decay)
    given = dict(image_shape=shape, classes=data.outputs, weights=run.weights)
    bound = partial(build, scale=scale, rate=1e-3, **given)
    model = bound(tune.choose(bound, data, run, **rules))
    fit.fit(model, data, run, **rules)

    scores = evaluate.evaluate(model, data, run, scored=chexpert.SCORED)
    cams = explain_findings.grad_cam(model, data, run, scored=chexpert.SCORED)
    report.write(run, model, data, scores, cams)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/chexpert", sample=chest.write, sample_size=64)
