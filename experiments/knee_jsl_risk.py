"""Knee X-rays: do risk factors add to what the picture says about a later loss of joint space?

RUN is one of knee_kl_grade, see knee_jsl. A linear layer learns on its frozen trunk and on 14 risk
factors; frozen=false goes on with all layers. use=image and use=risk leave one out. The grade, one
of the 14, is read off the same picture: beside a trunk that sees badly it helps where no other
factor does, and factors=without_grade leaves it out. Results: experiments/README.md.

    python experiments/knee_jsl_risk.py --weights RUN                    # sample data, CPU, 1 min
    python experiments/knee_jsl_risk.py --weights RUN --data data/knee   # your JSL.csv and pictures
"""

from functools import partial

import keras

from medkeras.evaluation import evaluate, explain, report
from medkeras.losses import compiled
from medkeras.models import fusion, transfer
from medkeras.phantoms import knee_xray
from medkeras.preparation import augment, pipeline, risks, splits
from medkeras.readers import knee, tables
from medkeras.training import fit, lineage, runs, tune

USES = {"image": ("image",), "risk": ("risk",), "both": ("image", "risk")}
FACTORS = {"all": knee.RISK_FACTORS, "without_grade": knee.RISK_FACTORS[:-5]}
RULES = dict(monitor="val_auc", mode="max", patience=None, class_weight="balanced")
HEAD = dict(epochs=10, plateau_patience=None, decay=0.8, decay_every=3, **RULES)


def build(hp, backbone, **given):
    backbone = hp.Choice("backbone", list(transfer.BACKBONES), default=backbone)
    model = fusion.image_and_risk(backbone=backbone, **given)
    rate = hp.Float("head_learning_rate", 1e-4, 1e-1, sampling="log", default=1e-3)
    return compiled(model, keras.optimizers.Adam(rate), curves=True)


def main(run):
    shape, frozen = run.image_shape(224, 224, 1), run.choice("frozen", ["true", "false"], "true")
    use = USES[run.choice("use", USES, "both")]
    factors = FACTORS[run.choice("factors", FACTORS, "all")]
    table = lineage.follow(run.weights, splits.by_patient(run.read(knee.read), **run.splitting))
    given = dict(augment=augment.knee(), views=4, **run.loading)
    data = pipeline.images(tables.single(table, "jsl"), shape, 16, **given)
    data = risks.beside(data, factors, use)

    given = dict(image_shape=shape, risks=len(factors), use=use, weights=run.weights)
    bound = partial(build, backbone="densenet_tiny" if run.sample else "vgg16", **given)
    model = bound(tune.choose(bound, data, run, **HEAD))
    fit.fit(model, data, run, **HEAD)
    if frozen == "false" and "image" in use:
        compiled(fit.unfreeze(model), keras.optimizers.Adam(5e-5), curves=True)
        fit.fit(model, data, run, epochs=20, plateau_patience=None, **RULES)

    scores = evaluate.evaluate(model, data, run)
    report.write(run, model, data, scores, explain.grad_cam(model, data, run, saliency=True))


if __name__ == "__main__":
    few = partial(knee_xray.write, patients=1200, films=None)
    runs.start(main, __doc__, data="data/knee", sample=few, sample_size=64)
