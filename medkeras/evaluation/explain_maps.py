"""Grad-CAM maps of all findings of a picture for little more than one prediction.

A map is relu(sum over channels of mean gradient x activation) of Selvaraju et al. 2017. The model
is divided at the layer whose activations are weighted: what lies before is computed once, and
only the rest, which is short for a late layer, is differentiated for each finding.
"""

from functools import lru_cache

import numpy as np


def heat(model, batches, layer, findings) -> np.ndarray:
    """Computes the Grad-CAM maps of all findings.

    Args:
        model: functional model of one picture, logits out.
        batches: iterable of uint8 (batch, height, width, channels).
        layer: name of the layer whose activations are weighted.
        findings: number of logits that are explained, the first ones.

    Returns:
        float32 (n, findings, h, w) at the layer's resolution, not negative, not rescaled.
    """
    graph = _graph(model, layer, findings)
    found = [graph(np.ascontiguousarray(batch)).numpy() for batch in batches]
    return np.concatenate(found) if found else np.empty((0, findings, 1, 1), np.float32)


def beside(model, layer) -> list[str]:
    """Says that a map is not the whole answer, where some of it passes by the layer; else []."""
    if not _around(model, model.get_layer(layer).output):
        return []
    return [f"What reaches the answer by other ways than {layer} is not in the heat maps."]


@lru_cache(maxsize=2)  # tracing a large backbone takes seconds
def _graph(model, layer, findings):
    import keras
    import tensorflow as tf

    features = model.get_layer(layer).output
    if len(features.shape) != 4:
        raise ValueError(f"layer {layer!r} gives {features.shape}: a feature map is needed")
    border = [features, *_around(model, features)]
    trunk, tail = keras.Model(model.input, border), keras.Model(border, model.outputs[0])

    @tf.function(input_signature=[tf.TensorSpec(model.input.shape, tf.uint8)])
    def graph(pictures):
        read = trunk(tf.cast(pictures, tf.float32), training=False)
        activations, *around = keras.tree.flatten(read)  # a list of one comes bare
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(activations)
            values = tf.cast(tail([activations, *around], training=False), tf.float32)
            answers = [tf.reduce_sum(values[:, k]) for k in range(findings)]
        gradients = [tape.gradient(answer, activations) for answer in answers]
        weights = [tf.reduce_mean(tf.cast(one, tf.float32), axis=(1, 2)) for one in gradients]
        activations = tf.cast(activations, tf.float32)
        return tf.nn.relu(tf.einsum("nhwc,knc->nkhw", activations, tf.stack(weights)))

    return graph


def _around(model, features):
    """Lists what the layers behind a tensor read besides it and each other."""
    behind, around = {id(features)}, {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if any(id(one) in behind for one in node.input_tensors):
                around |= {id(one): one for one in node.input_tensors if id(one) not in behind}
                behind |= {id(one) for one in node.outputs}
    return list(around.values())
