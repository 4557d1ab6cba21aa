"""Where is the joint? Films of both knees, cut in halves; a box around each joint, or none.

Trains what `python -m medkeras.serving.crop` cuts single knees out of films with.

    python experiments/knee_locate.py                           # sample data, CPU, 1 min
    python experiments/knee_locate.py --data data/films         # films/ and joints.csv

Results: experiments/README.md.
"""

from functools import partial

import keras

from medkeras.errors import UsageError
from medkeras.evaluation import locate, locate_report
from medkeras.models import locator
from medkeras.phantoms import knee_xray
from medkeras.preparation import boxes, splits
from medkeras.readers import films
from medkeras.training import fit, runs, tune

BATCH_SIZE = 16
RULES = dict(epochs=30, patience=None, plateau_patience=None, decay=0.88)


def build(hp, image_shape):
    model = locator.locator(
        image_shape,
        filters=hp.Choice("filters", [8, 16, 32], default=16),
        dropout=hp.Float("dropout", 0.0, 0.5, default=0.0),
    )
    rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=3e-3)
    return locator.compiled(model, keras.optimizers.Adam(rate))


def main(run):
    if run.part and run.part.null:
        raise UsageError("--null-control is for classes and findings: a box is neither")
    shape = run.image_shape(128, 128, 1)
    table = splits.by_patient(run.read(films.read), **run.splitting)
    data = boxes.films(table, shape, BATCH_SIZE, augment=boxes.moves(), **run.loading)

    bound = partial(build, image_shape=shape)
    model = bound(tune.choose(bound, data, run, **RULES))
    fit.fit(model, data, run, **RULES)

    found = locate.evaluate(model, data, run)
    locate_report.write(run, model, data, found)


if __name__ == "__main__":
    sample = partial(knee_xray.write, patients=160)
    runs.start(main, __doc__, data="data/knee", sample=sample, sample_size=128)
