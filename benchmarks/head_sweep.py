"""A sweep over the head of frozen Xception, 20 trials of 10 epochs, against the naive way.

The sweep is KerasTuner's random search as `--tune 20` runs it, from declaring the space to
the table of trials, all counted: building 20 models, features computed once, 200 epochs of
heads. The naive way keeps the backbone in the graph and calls `model.fit`: one epoch of one
trial is timed, after its tracing, and MULTIPLIED by the 200 epochs; the whole would take hours.
The limit is 200: as many passes over the backbone against one.

    python benchmarks/head_sweep.py [--size 299] [--pictures 512] [--trials 20] [--epochs 10]
"""

import sys
from functools import partial

import keras
import keras_tuner
from _measure import Clock, conclude, flags, radiographs, workplace

from medkeras.losses import compiled
from medkeras.models import transfer
from medkeras.preparation import pipeline
from medkeras.training import runs, tune

GOAL, BATCH = 80, 32


def build(hp, image_shape, outputs):
    model = transfer.xception(
        image_shape,
        outputs,
        units=hp.Choice("units", [0, 256, 512, 1024], default=512),
        dropout=hp.Float("dropout", 0.2, 0.6, step=0.1, default=0.4),
        l2=hp.Float("l2", 1e-7, 1e-4, sampling="log", default=1e-6),
        weights=None,
    )
    return compiled(model, keras.optimizers.Adam(hp.Choice("learning_rate", [1e-3, 1e-4])))


def naive_epoch(bound, data):
    """Returns the CPU seconds of a later epoch of `model.fit` with the default head."""
    model = bound(keras_tuner.HyperParameters())
    train = data.train.pictures(), data.train.labels
    val = data.val.pictures(), data.val.labels
    # A full and a last batch of each, so that the epoch below traces nothing.
    some = [[array[: BATCH + len(array) % BATCH] for array in part] for part in (train, val)]
    model.fit(*some[0], batch_size=BATCH, validation_data=some[1], verbose=0)
    with Clock() as clock:
        model.fit(*train, batch_size=BATCH, validation_data=val, verbose=0)
    return clock.seconds


def main(run, given, table):
    shape = (given.size, given.size, 1)
    data = pipeline.images(table, shape, BATCH, **run.loading)
    bound = partial(build, image_shape=shape, outputs=data.outputs)
    with Clock() as clock:
        tune.choose(bound, data, run, epochs=given.epochs, patience=None, plateau_patience=None)
    epochs = given.trials * given.epochs
    naive = naive_epoch(bound, data) * epochs
    print(f"{len(data.train)} + {len(data.val)} pictures of {given.size} pixels, {epochs} epochs")
    theirs = f"backbone in the graph: one epoch, {naive / epochs:.1f} CPU s, times {epochs}"
    conclude(("sweep on features computed once", clock.seconds), (theirs, naive), GOAL)


if __name__ == "__main__":
    given = flags(__doc__, size=299, pictures=512, trials=20, epochs=10)
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, given.size, given.size)
        argv = ["--data", str(folder), "--out", str(folder / "run"), "--tune", str(given.trials)]

        def page(run):
            main(run, given, table)

        try:
            runs.start(page, __doc__, data="", sample=None, argv=argv)
        except SystemExit as ended:
            sys.exit(ended.code)
