"""Knee MRI, one finding a run: one stack of convolutions looks at three planes.

Variants: basic, relu and leaky (with batch norm and dropout), pretrained (AlexNet).

    python experiments/mrnet_views.py                           # sample data, CPU, 2 min
    python experiments/mrnet_views.py --data data/mrnet         # your exams
    python experiments/mrnet_views.py --set task=meniscus --set variant=leaky --set patience=1
    python experiments/mrnet_views.py --set planes=sagittal     # the network of one plane

Results: experiments/README.md.
"""

from functools import partial

from medkeras.evaluation import evaluate, explain_exams, report
from medkeras.losses import compiled
from medkeras.models import mrnet as models
from medkeras.phantoms import knee_mri
from medkeras.preparation import exams, splits
from medkeras.readers import mrnet, tables
from medkeras.training import fit, optimizers, runs, tune

BATCH_SIZE = 1  # exam: its slices are batch enough
WEIGHED = dict(class_weight="complement", weigh_validation=True)
RULES = dict(epochs=30, plateau_factor=0.3, min_learning_rate=1e-9, **WEIGHED)


def build(hp, rate, **given):
    variant = hp.Choice("variant", list(models.VARIANTS), default="basic")
    slices = hp.Choice("slices", ["max", "mean", "attention"])
    model = models.views(variant, slices=slices, frozen=hp.Boolean("frozen"), **given)
    rate = hp.Float("learning_rate", 1e-7, 1e-3, sampling="log", default=rate)
    return compiled(model, optimizers.CoupledAdam(rate, decay=0.01), curves=True)


def rules(hp):
    return RULES | {"plateau_patience": hp.Int("patience", 1, 5, default=3)}


def main(run):
    shape = run.image_shape(256, 256, 1)
    task = run.choice("task", mrnet.LABELS, "acl")
    plane = run.choice("planes", ["all", *mrnet.PLANES], "all")
    planes = mrnet.PLANES if plane == "all" else (plane,)
    table = tables.single(splits.by_patient(run.read(mrnet.read), **run.splitting), task)
    data = exams.volumes(table, shape, BATCH_SIZE, planes=planes, stretch=True, **run.loading)

    rate = 3e-4 if run.sample else 1e-5  # published: 1e-5, for a thousand exams
    bound = partial(build, rate=rate, image_shape=shape, planes=planes, weights=run.weights)
    hp = tune.choose(bound, data, run, rules)
    model = bound(hp)
    fit.fit(model, data, run, **rules(hp))

    scores = evaluate.evaluate(model, data, run)
    cams = explain_exams.grad_cam(model, data, run)
    report.write(run, model, data, scores, cams)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/mrnet", sample=knee_mri.sample, sample_size=64)
