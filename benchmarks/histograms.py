"""Histograms for TensorBoard: ours against the callback's `histogram_freq=1`.

The 21 million parameters of Xception under a head: Keras logs all weights each epoch; ours
logs them all in the first epoch and the head alone in the others (the rest is frozen), with
the gradients of the head's loss each time. The ratio is that of a first epoch, best of three,
where both log the same weights and ours the gradients besides; the second ratio is that of
ten epochs. Both event files are read back: where they do not count every parameter, the exit
code is 1.

    python benchmarks/histograms.py [--size 299] [--pictures 8]
"""

import sys

import keras
import numpy as np
from _measure import Clock, conclude, flags, radiographs, workplace
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from medkeras.losses import compiled
from medkeras.models import transfer
from medkeras.preparation import pipeline
from medkeras.training import board, features, histograms

GOAL, EPOCHS = 10, 10


def spent(write, epoch):
    with Clock() as clock:
        write(epoch)
    return clock.seconds


def counted(folder, kinds=("",)):
    """Returns the number of values that the histograms of epoch 1 in a folder count."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith(kinds)]
    first = [next(e for e in events.Tensors(tag) if e.step == 1) for tag in tags]
    return sum(tensor_util.make_ndarray(event.tensor_proto)[:, 2].sum() for event in first)


def xception(data, folder):
    """Logs epochs of an Xception with a head in both ways; says whether both are complete."""
    model = transfer.xception(data.image_shape, data.outputs, units=256, weights=None)
    feed = features.feed(compiled(model, keras.optimizers.Adam()), data)
    probe = np.ones((4, *feed.model.input_shape[1:]), np.float32), np.ones(4, np.int64)
    writer = board.Board(folder / "ours")
    looked_at = histograms.Histograms(writer, model, feed.model, probe)
    looked_at.now()  # its tracing is no part of an epoch
    first = [spent(lambda e: looked_at.write(e, first=True), epoch) for epoch in (0, 1, 2)]
    other = [spent(lambda e: looked_at.write(e, first=False), epoch) for epoch in (3, 4, 5)]
    writer.close()
    callback = keras.callbacks.TensorBoard(folder / "keras", histogram_freq=1, write_graph=False)
    callback.set_model(model)
    theirs = [spent(callback.on_epoch_end, epoch) for epoch in (0, 1, 2)]
    callback.on_train_end()
    names = "our histograms", "TensorBoard(histogram_freq=1)"
    conclude((names[0], min(first)), (names[1], min(theirs)), GOAL)
    ten = min(first) + (EPOCHS - 1) * min(other), EPOCHS * min(theirs)
    conclude((names[0], ten[0]), (names[1], ten[1]), GOAL, what=f"over {EPOCHS} epochs, ratio")
    kinds = "weights/", "biases/"
    found = counted(folder / "ours", kinds), counted(folder / "keras" / "train")
    return all(np.isclose(number, model.count_params()) for number in found)


def main():
    given = flags(__doc__, size=299, pictures=8)
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, given.size, given.size)
        complete = xception(pipeline.images(table, (given.size, given.size, 1), 32), folder)
    return int(not complete)


if __name__ == "__main__":
    sys.exit(main())
