"""The second epoch's input: our stored pictures against `image_dataset_from_directory`.

Both turn a folder of grey JPEG pictures, 1500 x 1200, into batches of float32 at 299 pixels,
without augmentation. Keras decodes and resizes every picture in every epoch, to RGB as is its
default and as backbones need; ours were stored once as uint8, one channel, and are gathered
and cast, in the loop's own order (models repeat the channel themselves). The pictures must
agree: correlation above 0.98 with the grey of Keras's, else the exit code is 1.

    python benchmarks/second_epoch_input.py [--size 299] [--pictures 300]
"""

import sys

import keras
import numpy as np
from _measure import Clock, conclude, flags, radiographs, streamed, workplace

from medkeras.preparation import pipeline

GOAL, BATCH, EPOCHS, AGREEMENT = 30, 32, 10, 0.98


def consume(dataset):
    """Goes through a data set; returns the number of pictures."""
    return sum(len(pictures) for pictures, _ in dataset)


def agreement(data, dataset):
    """Returns the least correlation of a picture with ours, for the pictures in order."""
    theirs = np.concatenate([pictures.numpy().mean(axis=-1) for pictures, _ in dataset])
    ours = data.train.pictures()[..., 0]
    return min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, theirs, strict=True))


def main():
    given = flags(__doc__, size=299, pictures=300)
    shape = (given.size, given.size, 1)
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, 1200, 1500)
        table = table.sort_values("path").assign(split="train")
        data = pipeline.images(table, shape, BATCH)
        consume(streamed(data, 0, 1))
        with Clock() as ours:
            seen = consume(streamed(data, 1, 1 + EPOCHS))
        options = dict(image_size=shape[:2], batch_size=BATCH, verbose=False)
        read = keras.utils.image_dataset_from_directory
        dataset = read(folder / "pictures", seed=0, **options)
        consume(dataset)
        with Clock() as theirs:
            assert consume(dataset) * EPOCHS == seen
        alike = agreement(data, read(folder / "pictures", shuffle=False, **options))
    each = 1000 / given.pictures
    conclude(
        ("stored once, uint8 memory map", ours.seconds / EPOCHS * each),
        ("image_dataset_from_directory", theirs.seconds * each),
        GOAL,
        "CPU ms a picture",
    )
    print(f"correlation of the pictures at least {alike:.4f} (more than {AGREEMENT})")
    return int(not alike > AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
