"""Input with augmentation: our pictures and affine against Keras's data set and layers.

Both make batches of float32 at 299 pixels from a folder of grey JPEG pictures, 1500 x 1200,
rotated, zoomed and flipped at random: Keras decodes, resizes and applies three layers, to RGB
as is its default; ours gathers uint8 pictures of one channel stored once, and moves each by
one composed matrix. The moves of the two are drawn differently, so only shape and range are
compared: another shape or range makes the exit code 1.

    python benchmarks/augmented_input.py [--size 299] [--pictures 200]
"""

import sys

import keras
from _measure import Clock, conclude, flags, radiographs, streamed, workplace

from medkeras.preparation import augment, pipeline

GOAL, BATCH, EPOCHS = 15, 32, 5
ROTATION, ZOOM = 30, 0.2


def keras_way(folder, size):
    """Builds Keras's data set with the same ranges of moves."""
    layers = [
        keras.layers.RandomFlip("horizontal_and_vertical", seed=1),
        keras.layers.RandomRotation(ROTATION / 360, fill_mode="nearest", seed=2),
        keras.layers.RandomZoom(ZOOM, fill_mode="nearest", seed=3),
    ]

    def moved(pictures, labels):
        for layer in layers:
            pictures = layer(pictures, training=True)
        return pictures, labels

    dataset = keras.utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=BATCH, seed=0, verbose=False
    )
    return dataset.map(moved, num_parallel_calls=2).prefetch(2)


def consume(dataset, size):
    """Goes through a data set; returns how many pictures were as they should be."""
    seen = 0
    for pictures, _ in dataset:
        low, high = pictures.numpy().min(), pictures.numpy().max()
        sound = pictures.shape[1:3] == (size, size) and -0.01 <= low < high <= 255.01
        seen += sound * len(pictures)
    return seen


def main():
    given = flags(__doc__, size=299, pictures=200)
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, 1200, 1500).assign(split="train")
        moves = augment.radiograph(ROTATION, zoom=ZOOM)
        data = pipeline.images(table, (given.size, given.size, 1), BATCH, augment=moves)
        consume(streamed(data, 0, 1), given.size)
        with Clock() as ours:
            seen = consume(streamed(data, 1, 1 + EPOCHS), given.size)
        dataset = keras_way(folder / "pictures", given.size)
        consume(dataset.take(1), given.size)
        with Clock() as theirs:
            plain = consume(dataset, given.size)
    each = 1000 / given.pictures
    conclude(
        ("stored uint8 pictures, one affine", ours.seconds / EPOCHS * each),
        ("image_dataset_from_directory and three layers", theirs.seconds * each),
        GOAL,
        "CPU ms a picture",
    )
    return int((seen, plain) != (EPOCHS * given.pictures, given.pictures))


if __name__ == "__main__":
    sys.exit(main())
