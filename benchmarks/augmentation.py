"""Augmentation alone: one affine on uint8 against Keras's `ImageDataGenerator`.

Rotation by up to 30 degrees and both flips, at 224 pixels, from arrays in memory. The
generator gets float32 RGB as the published study gave it; ours takes the stored grey uint8,
and the model repeats the channel. As both draw their moves differently, they are compared on a
move that both are told: a flip must give the same pixels, a turn by 20 degrees nearly the same
(correlation above 0.98 in the middle), else the exit code is 1.

    python benchmarks/augmentation.py [--size 224] [--pictures 256]
"""

import sys

import cv2
import numpy as np
import tensorflow as tf
from _measure import Clock, conclude, flags, radiographs, workplace

from medkeras.preparation import augment, pipeline

GOAL, BATCH, ROTATION, TURN, AGREEMENT = 20, 32, 30, 20, 0.98


def agreement(generator, moves, picture):
    """Returns the correlation of both ways on one turn, or 0 where their flips differ."""
    rgb = np.repeat(picture, 3, axis=-1).astype(np.float32)
    size = picture.shape[0]
    flip = np.array([0, 0, 0, -1, 1, 0, 0])  # left and right only
    turn = np.array([TURN / ROTATION, 0, 0, 1, 1, 0, 0])
    ours = [
        cv2.warpAffine(picture, moves.matrix(draw, size, size), (size, size))
        for draw in (flip, turn)
    ]
    theirs = [
        generator.apply_transform(rgb, {"flip_horizontal": True})[..., 0],
        generator.apply_transform(rgb, {"theta": -TURN})[..., 0],
    ]
    middle = slice(size // 4, -size // 4)
    a, b = ours[1][middle, middle].ravel(), theirs[1][middle, middle].ravel()
    return np.corrcoef(a, b)[0, 1] if np.array_equal(ours[0], theirs[0]) else 0.0


def main():
    given = flags(__doc__, size=224, pictures=256)
    shape, rows = (given.size, given.size, 1), np.arange(given.pictures)
    moves = augment.radiograph(ROTATION)
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=ROTATION, horizontal_flip=True, vertical_flip=True, fill_mode="nearest"
    )
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, given.size, given.size)
        data = pipeline.images(table.assign(split="train"), shape, BATCH, augment=moves)
        parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        with Clock() as ours:
            for epoch in range(10):
                for part in parts:
                    data.train.inputs(part, epoch)
        rgb = np.repeat(data.train.pictures(), 3, axis=-1).astype(np.float32)
        flow = generator.flow(rgb, data.train.labels, batch_size=BATCH, seed=0)
        with Clock() as theirs:
            for number in range(len(flow)):
                flow[number]
        alike = agreement(generator, moves, data.train.pictures()[0])
    each = 1000 / given.pictures
    conclude(
        ("one affine, grey uint8", ours.seconds / 10 * each),
        ("ImageDataGenerator, RGB float32", theirs.seconds * each),
        GOAL,
        "CPU ms a picture",
    )
    print(f"correlation after the same turn {alike:.4f} (more than {AGREEMENT})")
    return int(not alike > AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
