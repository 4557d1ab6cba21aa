"""Ten epochs of a head on frozen Xception: features computed once, or backbone in the graph.

Both ways go through `loop.train`, with the same seed, order, batches and no augmentation, and
save their state after every epoch as a run does. The first way counts the extraction of the
features, the second nothing but the same loop on the whole model; tracing counts for both.
Every loss of every epoch must agree to 1e-6, else the exit code is 1. Ten is the limit of the
steady state: ten passes over the backbone against one.

    python benchmarks/frozen_features.py [--size 299] [--pictures 128]
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from _measure import Clock, conclude, flags, radiographs, workplace

from medkeras.losses import compiled
from medkeras.models import transfer
from medkeras.preparation import pipeline
from medkeras.training import features, loop, settling

GOAL, TOLERANCE, SEED = 8.5, 1e-6, 0
RULES = loop.Rules(epochs=10, patience=None, plateau_patience=None)


def fitted(model, weights, data, folder, plain):
    """Trains from the given weights; returns CPU seconds and the losses, (epochs, 2)."""
    model.set_weights(weights)
    compiled(model, keras.optimizers.Adam(1e-3))
    with Clock() as clock:
        feed = features.feed(model, data, plain=plain)
        progress = loop.train(feed, data, RULES, seed=SEED, folder=folder)
    return clock.seconds, np.array([[row["loss"], row["val_loss"]] for row in progress.history])


def main():
    given = flags(__doc__, size=299, pictures=128)
    tf.config.experimental.enable_op_determinism()  # as every run does
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, given.size, given.size)
        data = pipeline.images(table, (given.size, given.size, 1), batch_size=32, seed=SEED)
        keras.utils.set_random_seed(SEED)
        model = transfer.xception(data.image_shape, data.outputs, units=256, l2=1e-6, weights=None)
        settling.settle(model, data)
        weights = model.get_weights()
        ours, losses = fitted(model, weights, data, folder / "ours", plain=False)
        theirs, plain_losses = fitted(model, weights, data, folder / "plain", plain=True)
    print(f"{len(data.train)} + {len(data.val)} pictures of {given.size} pixels, 10 epochs")
    conclude(("features computed once", ours), ("backbone in the graph", theirs), GOAL)
    apart = np.max(np.abs(losses / plain_losses - 1))
    print(f"losses agree to {apart:.1e} (at most {TOLERANCE:g})")
    return int(not apart <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
