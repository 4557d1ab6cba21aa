"""Chest X-rays, 14 findings at once: six backbones side by side and one linear layer.

Frozen, each backbone runs once over the pictures, and the linear layer trains on their joined
features. Unfrozen, all learn together, as published; that asks for a large GPU.

    python experiments/chexpert_combined.py                        # sample data, 3 small ones, CPU
    python experiments/chexpert_combined.py --data data/chexpert   # your X-rays
    python experiments/chexpert_combined.py --set frozen=false     # as published
    python experiments/chexpert_combined.py --set trunks=mobilenet_v2 --weights FILE.h5

Uncertain labels: see chexpert_densenet.py. Results: experiments/README.md.
"""

from functools import partial

import keras

from medkeras.evaluation import evaluate, explain_findings, report
from medkeras.losses import compiled_findings
from medkeras.models.combined import PUBLISHED, combined
from medkeras.phantoms import chest
from medkeras.preparation import augment, pipeline, splits, uncertainty
from medkeras.readers import chexpert
from medkeras.training import fit, runs, tune

SMALL, ONE = ("densenet_tiny", "mnasnet", "mobilenet_v2"), ("mobilenet_v2",)
TRUNKS = dict(published=PUBLISHED, densenets=PUBLISHED[:3], small=SMALL, mobilenet_v2=ONE)


def build(hp, trunks, rate, **given):
    trunks = TRUNKS[hp.Choice("trunks", list(TRUNKS), default=trunks)]
    model = combined(trunks=trunks, **given)
    rate = hp.Float("learning_rate", 1e-7, 1e-2, sampling="log", default=rate)
    return compiled_findings(model, keras.optimizers.Adam(rate), chexpert.LABELS)


def main(run):
    shape = run.image_shape(224, 224, 1)
    table = splits.by_patient(run.read(chexpert.read), **run.splitting)
    table = uncertainty.blanks_as(table, 0.0)  # what a report does not mention is absent
    policy = uncertainty.chosen(run, chexpert.LABELS, "ignore")
    frozen = run.choice("frozen", ["true", "false"], "true") == "true"
    # Frozen, each further view costs a pass of every backbone.
    given = dict(findings=chexpert.LABELS, policy=policy, **run.loading)
    data = pipeline.images(table, shape, 8, augment=None if frozen else augment.chest(), **given)

    rate, epochs, decay = (1e-4, 30, 1.0) if frozen else (1e-5, 7, 0.1)
    rules = dict(epochs=epochs, patience=8, plateau_patience=None, decay=decay)
    given = dict(image_shape=shape, classes=data.outputs, frozen=frozen, weights=run.weights)
    bound = partial(build, trunks="small" if run.sample else "published", rate=rate, **given)
    model = bound(tune.choose(bound, data, run, **rules))
    fit.fit(model, data, run, **rules)

    scores = evaluate.evaluate(model, data, run, scored=chexpert.SCORED)
    cams = explain_findings.grad_cam(model, data, run, scored=chexpert.SCORED)
    report.write(run, model, data, scores, cams)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/chexpert", sample=chest.write, sample_size=64)
