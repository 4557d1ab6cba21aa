"""The share of training a small CNN that its histograms take.

Weights, biases and gradients of every layer are logged after each epoch, as `fit.fit` does. The
CPU time of all logging, tracing of the gradients counted, is divided by that of
all else in the stage: tracing, training, validation and checkpoints. It depends on the number of
pictures: the gradients are those of every 32nd.

    python benchmarks/histogram_share.py [--size 224] [--pictures 192] [--epochs 10]
"""

import keras
import numpy as np
from _measure import Clock, flags, radiographs, workplace

from medkeras.losses import compiled
from medkeras.models import custom_cnn
from medkeras.preparation import pipeline
from medkeras.training import board, features, histograms, loop

GOAL = 10


def main():
    given = flags(__doc__, size=224, pictures=192, epochs=10)
    rules = loop.Rules(given.epochs, patience=None, plateau_patience=None)
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, given.size, given.size)
        data = pipeline.images(table, (given.size, given.size, 1), 32)
        model = custom_cnn.v1(data.image_shape, data.outputs)
        feed = features.feed(compiled(model, keras.optimizers.Adam(1e-3)), data)
        writer, made, seconds = board.Board(folder / "tensorboard"), [], []

        def log(history, best):
            with Clock() as clock:
                if not made:
                    rows = np.arange(histograms.probe_size(len(data.train), data.batch_size))
                    probe = pipeline.as_tensors((feed.train(rows, 0), data.train.labels[rows]))
                    made.append(histograms.Histograms(writer, model, feed.model, probe))
                made[0].write(len(history), first=len(history) == 1)
            seconds.append(clock.seconds)

        with Clock() as clock:
            hooks = loop.Hooks(epoch=log)
            loop.train(feed, data, rules, seed=0, folder=folder / "checkpoint", hooks=hooks)
        writer.close()
    rest = clock.seconds - sum(seconds)
    print(f"{len(data.train)} + {len(data.val)} pictures of {given.size} pixels")
    print(f"{rest:12.4f} CPU s  training, validation, checkpoints")
    print(f"{sum(seconds):12.4f} CPU s  histograms, {seconds[0]:.2f} of them in the first epoch")
    print(f"share {100 * sum(seconds) / rest:.1f} % (goal < {GOAL} %)")
    print(f"ratio {rest / sum(seconds):.1f} (goal >= {100 // GOAL})")


if __name__ == "__main__":
    main()
