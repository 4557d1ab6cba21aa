"""Three findings on a frozen knee MRI trunk, ten epochs each: features once, or trunk in the graph.

`mrnet.views("pretrained", frozen=True)` is trained for abnormal, then acl, then meniscus, all on
one split. Our way counts everything of the three: the features of all slices, computed for the
first and found again by the others, tracing, and thirty epochs. Of the other way, the same loop
on the whole model, ONE epoch of the first finding is timed, its second, after tracing, and
MULTIPLIED by thirty. The losses of its epochs must agree to 1e-5, else the exit code is 1.
Thirty is the limit: as many passes over the trunk against one.

    python benchmarks/mrnet_frozen.py [--size 256] [--exams 36]
"""

import sys
import time

import keras
import numpy as np
from _measure import Clock, conclude, flags, knees, workplace

from medkeras.losses import compiled
from medkeras.models import mrnet
from medkeras.preparation import exams
from medkeras.readers import tables
from medkeras.readers.mrnet import LABELS
from medkeras.training import environment, features, loop, optimizers

GOAL, TOLERANCE, SEED, EPOCHS = 20, 1e-5, 0, 10


def prepared(table, size, finding):
    """Returns the data set and the compiled model of one finding, of the same weights."""
    data = exams.volumes(tables.single(table, finding), (size, size, 1), 1, stretch=True)
    keras.utils.set_random_seed(SEED)
    model = mrnet.views("pretrained", data.image_shape, frozen=True)
    return data, compiled(model, optimizers.CoupledAdam(1e-3, decay=0.01), curves=True)


def trained(feed, data, folder, epochs):
    """Trains; returns the losses of the epochs, (epochs, 2), and the CPU time at their ends."""
    rules = loop.Rules(epochs, patience=None, plateau_patience=None)
    ends = []
    hooks = loop.Hooks(epoch=lambda history, best: ends.append(time.process_time()))
    progress = loop.train(feed, data, rules, seed=SEED, folder=folder, hooks=hooks)
    return np.array([[row["loss"], row["val_loss"]] for row in progress.history]), ends


def main():
    given = flags(__doc__, size=256, exams=36)
    environment.prepare(SEED, "float32")
    with workplace() as folder:
        table = knees(folder / "exams", given.exams, given.size)
        spent, losses = [], []
        for finding in LABELS:
            data, model = prepared(table, given.size, finding)
            with Clock() as clock:
                feed = features.feed(model, data)
                losses.append(trained(feed, data, folder / finding, EPOCHS)[0])
            spent.append(clock.seconds)
        data, model = prepared(table, given.size, LABELS[0])
        feed = features.feed(model, data, plain=True)
        plain_losses, ends = trained(feed, data, folder / "plain", 2)
    count, epoch = len(LABELS) * EPOCHS, ends[1] - ends[0]
    each = ", ".join(f"{name} {seconds:.1f}" for name, seconds in zip(LABELS, spent, strict=True))
    print(f"{len(data.train)} + {len(data.val)} exams of 3 planes, {given.size} pixels; {each}")
    theirs = f"trunk in the graph: one epoch, {epoch:.1f} CPU s, times {count}"
    conclude(("features computed once", sum(spent)), (theirs, epoch * count), GOAL)
    apart = np.max(np.abs(losses[0][:2] / plain_losses - 1))
    print(f"losses agree to {apart:.1e} (at most {TOLERANCE:g})")
    return int(not apart <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
