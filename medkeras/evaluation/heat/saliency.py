"""Saliency: how much each pixel would move a logit.

The absolute value of the gradient of one logit with respect to the picture, the largest one over
the channels (Simonyan, Vedaldi and Zisserman 2013, arXiv 1312.6034). Pixels are those that go into
the model, 0..255, so a value is logits a grey level.
"""

import numpy as np

from medkeras.preparation import pipeline

METHOD = "|d logit / d pixel|, the largest over the channels"


def maps(model, batches, targets) -> np.ndarray:
    """Computes saliency maps, one a picture, for a class each.

    Args:
        model: functional model, raw pixels in, logits out; of two classes one logit, whose map is
            that of both.
        batches: iterable of uint8 (batch, height, width, channels), or of the lists of a model
            with more inputs, pictures first.
        targets: (n,) class that each map is of.

    Returns:
        float32 (n, height, width), not negative, not rescaled.
    """
    import tensorflow as tf

    outputs = int(model.output_shape[-1])
    chosen = np.minimum(np.asarray(targets, dtype=int), outputs - 1)
    directions = np.eye(outputs, dtype=np.float32)[chosen]

    @tf.function(reduce_retracing=True)
    def gradients(inputs, direction):
        (inputs,) = pipeline.as_tensors([inputs])
        pictures = tf.nest.flatten(inputs)[0]
        with tf.GradientTape() as tape:
            tape.watch(pictures)
            values = tf.cast(model(inputs, training=False), tf.float32)
            score = tf.reduce_sum(values * direction)
        return tf.reduce_max(tf.abs(tape.gradient(score, pictures)), axis=-1)

    found, start = [], 0
    for batch in batches:
        inputs = batch if isinstance(batch, list) else [batch]
        direction = directions[start : start + len(inputs[0])]
        start += len(inputs[0])
        found.append(gradients([*map(np.ascontiguousarray, inputs)], direction).numpy())
    shape = model.inputs[0].shape[1:3]
    return np.concatenate(found) if found else np.empty((0, *shape), np.float32)
