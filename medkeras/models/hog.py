"""A line through histograms of oriented gradients: what a classical baseline reaches.

A picture is described by the directions of its edges, cell by cell (Dalal and Triggs, "Histograms
of oriented gradients for human detection", CVPR 2005), and the classes are told apart by
multinomial logistic regression. Only that is learned. The numbers are those of
`skimage.feature.hog` with `block_norm="L2-Hys"`.
"""

import math

import keras
import numpy as np
from keras import ops

from medkeras import layers
from medkeras.errors import UsageError
from medkeras.models.recipe import recipe

CLIP = 0.2  # of a block of length 1, so that no single edge outweighs the others
EPSILON = 1e-5
# Of a bin. Whole grey values often turn by just 45 degrees, which rounding must not move to the
# bin below.
ROUNDING = 1e-5


@recipe
def linear(
    image_shape=(128, 128, 1),
    classes=5,
    *,
    cell=12,
    orientations=9,
    block=2,
    l2=0.0,
    ordinal=False,
    weights=None,
):
    """Builds a logistic regression on histograms of oriented gradients.

    Args:
        image_shape: (height, width, 1), pixels, at least a block of cells a side.
        classes: number of logits; 1 for two classes.
        cell: side of a cell, pixels, each with a histogram of its own; what is left over at the
            right and below is not seen.
        orientations: bins of a histogram, over half a turn.
        block: side of the blocks that share a scale of contrast, in cells. They overlap: a cell
            counts once in each block that holds it.
        l2: L2 factor on the kernel; 0 for none.
        ordinal: see `layers.logits`.
        weights: None, "none" or "auto", which mean the same: there is nothing to start from.

    Returns:
        An uncompiled functional model, raw pixels (batch, *image_shape) in, logits
        (batch, classes) out.

    Raises:
        UsageError: other weights, a picture in colour or too small, or an odd setting.
    """
    if weights not in (None, "none", "auto"):
        raise UsageError(
            f"--weights {weights}: the filters of HOG are fixed, and a straight line needs no "
            "start; leave it out"
        )
    image = layers.image_input(image_shape, smallest=cell * block)
    if image.shape[-1] != 1:
        raise UsageError(f"HOG takes grey pictures (height, width, 1); got {image_shape!r}")
    x = HOG(cell, orientations, block, dtype="float32", name="hog")(image)
    x = keras.layers.Flatten(name="flatten")(x)
    model = keras.Model(image, layers.logits(x, classes, l2=l2, ordinal=ordinal), name="hog_linear")
    # Grad-CAM takes the mean of a direction's weights over all cells, and a line weighs each apart.
    model.feature_map = None
    model.weights_origin = "none: fixed filters"
    return model


@keras.saving.register_keras_serializable("medkeras")
class HOG(keras.layers.Layer):
    """Counts the directions of edges in each cell, and scales the counts block by block.

    Args:
        cell: side of a cell, pixels.
        orientations: number of directions told apart, over half a turn.
        block: side of a block, cells.
        **kwargs: of every layer.

    Raises:
        UsageError: one of them is not a whole number of at least 1.
    """

    def __init__(self, cell, orientations, block, **kwargs):
        super().__init__(**kwargs)
        given = {"cell": cell, "orientations": orientations, "block": block}
        for name, value in given.items():
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number of at least 1; got {value!r}")
        self.cell, self.orientations, self.block = cell, orientations, block

    def build(self, input_shape):
        """Makes the filters. They are weights, so that what they compute is kept as features."""
        across = np.zeros((3, 3, 1, 1), "float32")
        across[1, 0], across[1, 2] = -1, 1
        both = np.concatenate([across, across.transpose(1, 0, 2, 3)], axis=-1)
        self.differences = self.add_weight(
            shape=both.shape,
            initializer=keras.initializers.Constant(both),
            trainable=False,
            name="differences",
        )

    def call(self, image):
        """Maps pictures (batch, height, width, 1) to blocks (batch, rows, columns, numbers)."""
        # Mirrored at the border, where a central difference is 0 then.
        padded = ops.pad(image, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="reflect")
        across, down = ops.split(ops.conv(padded, self.differences, padding="valid"), 2, axis=-1)
        # Where nothing changes, the root of 0 has no gradient.
        strength = ops.sqrt(ops.maximum(ops.square(across) + ops.square(down), 1e-36))
        turn = ops.arctan2(down, across)[..., 0] / math.pi * self.orientations
        number = ops.mod(ops.floor(turn + ROUNDING), self.orientations)
        bins = ops.one_hot(ops.cast(number, "int32"), self.orientations)
        cells = ops.average_pool(strength * bins, self.cell)
        rows, columns = (side - self.block + 1 for side in cells.shape[1:3])
        places = [(row, column) for row in range(self.block) for column in range(self.block)]
        blocks = ops.concatenate(
            [cells[:, row : row + rows, column : column + columns] for row, column in places],
            axis=-1,
        )
        return _unit(ops.minimum(_unit(blocks), CLIP))

    def get_config(self):
        """Returns what the layer is made of."""
        own = {"cell": self.cell, "orientations": self.orientations, "block": self.block}
        return super().get_config() | own


def _unit(blocks):
    return blocks / ops.sqrt(ops.sum(ops.square(blocks), axis=-1, keepdims=True) + EPSILON**2)
