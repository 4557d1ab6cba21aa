"""Chest X-rays, 14 findings at once, with DenseNet-121.

What training makes of findings that a report leaves uncertain is a setting, for all or for one.

    python experiments/chexpert_densenet.py                        # sample data, CPU, 3 min
    python experiments/chexpert_densenet.py --data data/chexpert   # your X-rays
    python experiments/chexpert_densenet.py --set uncertain=ones --set "uncertain Edema=zeros"
    python experiments/chexpert_densenet.py --set backbone=mobilenet_v2 --weights FILE.h5

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

BACKBONES = ["densenet121", "densenet169", "densenet201", "densenet_tiny", "mobilenet_v2"]
RULES = dict(patience=None, plateau_patience=None)  # published: halved after every epoch
HEADS = {"published": dict(units=500, hidden="linear", dropout=0.9), "simple": {}}


def build(hp, backbone, head, rate, **given):
    backbone = hp.Choice("backbone", BACKBONES, default=backbone)
    head = HEADS[hp.Choice("head", list(HEADS), default=head)]
    model = transfer.backbone(backbone, frozen=hp.Boolean("frozen"), **head, **given)
    rate = hp.Float("learning_rate", 1e-6, 1e-2, sampling="log", default=rate)
    return compiled_findings(model, keras.optimizers.Adam(rate), chexpert.LABELS)


def main(run):
    shape, size = run.image_shape(224, 224, 1), 16 if run.sample else 64
    table = splits.by_patient(run.read(chexpert.read), **run.splitting)
    table = uncertainty.blanks_as(table, 0.0)  # what a report does not mention is absent
    policy = uncertainty.chosen(run, chexpert.LABELS, "ignore")
    given = dict(findings=chexpert.LABELS, policy=policy, **run.loading)
    data = pipeline.images(table, shape, size, augment=augment.chest(), views=8, **given)

    small = dict(backbone="densenet_tiny", head="simple", rate=1e-3)  # learns the sample from zero
    start = small if run.sample else dict(backbone="densenet121", head="published", rate=1e-4)
    rules = dict(epochs=16 if run.sample else 8, decay=0.9 if run.sample else 0.5, **RULES)
    given = dict(image_shape=shape, classes=data.outputs, weights=run.weights)
    bound = partial(build, **start, **given)
    model = bound(tune.choose(bound, data, run, **rules))
    fit.fit(model, data, run, **rules)

    scores = evaluate.evaluate(model, data, run, scored=chexpert.SCORED)
    cams = explain_findings.grad_cam(model, data, run, scored=chexpert.SCORED)
    report.write(run, model, data, scores, cams)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/chexpert", sample=chest.write, sample_size=64)
