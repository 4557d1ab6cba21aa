"""Ten epochs of a linear layer on six frozen backbones, against one forward pass of each.

The first way is what `chexpert_combined.py` does: each backbone runs once over all pictures, its
features are stored, and ten epochs train on the joined ones. The second runs each backbone alone
over the same pictures, once, and keeps nothing. Tracing counts for both. The peak of memory is
that of the first way, the whole process; it is read from /proc (Linux).

    python benchmarks/combined_features.py [--size 224] [--pictures 128]
"""

import sys

import _memory
import keras
import numpy as np
import tensorflow as tf
from _measure import Clock, conclude, flags, radiographs, workplace

from medkeras import layers
from medkeras.losses import compiled
from medkeras.models import combined, trunk
from medkeras.preparation import pipeline
from medkeras.training import features, loop

GOAL, MOST_MEMORY = 0.83, 6000  # at most 1.2 passes; MB
RULES = loop.Rules(epochs=10, patience=None, plateau_patience=None)


def passed(name, data):
    """Runs one backbone over the training and validation pictures."""
    image = layers.image_input(data.image_shape, 32)
    forward = features._forward(keras.Model(image, trunk.build(name, image).output))
    for part in (data.train, data.val):
        for (pictures,) in part.batches():
            for output in forward(np.ascontiguousarray(pictures)):
                output.numpy()


def main():
    given = flags(__doc__, size=224, pictures=128)
    tf.config.experimental.enable_op_determinism()  # as every run does
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, given.size, given.size)
        data = pipeline.images(table, (given.size, given.size, 1), batch_size=8)
        model = combined.combined(data.image_shape, data.outputs, weights=None)
        compiled(model, keras.optimizers.Adam(1e-4))
        with Clock() as ours:
            feed = features.feed(model, data)
            loop.train(feed, data, RULES, seed=0)
        memory, trunks = _memory.peak(), len(feed.trunks)
        del model, feed
        with Clock() as theirs:
            for name in combined.PUBLISHED:
                passed(name, data)
    print(
        f"{len(data.train)} + {len(data.val)} pictures of {given.size} pixels, {trunks} backbones"
    )
    first = "ten epochs, features computed once"
    second = "one forward pass of each backbone"
    conclude((first, ours.seconds), (second, theirs.seconds), GOAL, digits=2)
    print(f"peak memory {memory:.0f} MB (at most {MOST_MEMORY})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
