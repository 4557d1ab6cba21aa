"""What do edges and a straight line know of the KL grade? Histograms of oriented gradients.

The classical baseline: multinomial logistic regression on fixed features. What a network reaches
beyond it is what learning features is worth.

    python experiments/knee_hog.py                      # sample data, CPU, 1 min
    python experiments/knee_hog.py --data data/knee     # your knees: class folders, OAI table
    python experiments/knee_hog.py --set ordinal=true   # a head that knows the grades' order
    python -m medkeras.evaluation.compare RUN RUN       # beside the run of a network

Results: experiments/README.md.
"""

from functools import partial

import keras

from medkeras.evaluation import evaluate, report
from medkeras.losses_heads import compiled_grades
from medkeras.models import hog
from medkeras.phantoms import knee_xray
from medkeras.preparation import augment, pipeline, splits
from medkeras.readers import knee
from medkeras.training import fit, runs, tune

RULES = dict(epochs=60, patience=None, plateau_patience=None, decay=0.93)


def build(hp, image_shape, grades, weights):
    model = hog.linear(
        image_shape,
        grades,
        cell=hp.Choice("cell", [8, 12, 16, 32], default=12),
        orientations=hp.Choice("orientations", [8, 9], default=9),
        l2=hp.Float("l2", 1e-5, 1e-2, sampling="log", default=1e-4),
        ordinal=hp.Boolean("ordinal"),
        weights=weights,
    )
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=2e-2)
    return compiled_grades(model, keras.optimizers.Adam(rate))


def main(run):
    shape = run.image_shape(128, 128, 1)
    table = splits.by_patient(run.read(knee.grades), test=0.12, validation=0.08, **run.splitting)
    data = pipeline.images(table, shape, 64, augment=augment.knee(), views=8, **run.loading)

    bound = partial(build, image_shape=shape, grades=len(knee.GRADES), weights=run.weights)
    model = bound(tune.choose(bound, data, run, **RULES))
    fit.fit(model, data, run, **RULES)

    scores = evaluate.evaluate(model, data, run, task="ordinal", positive_from=2)
    report.write(run, model, data, scores)


if __name__ == "__main__":
    runs.start(main, __doc__, data="data/knee", sample=knee_xray.write_grades)
