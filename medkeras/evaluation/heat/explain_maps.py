"""Grad-CAM maps of all findings of a picture for little more than one prediction.

A map is relu(sum over channels of gradient x activation), place by place (Draelos and Carin 2020,
"HiResCAM"). Behind the last map, where an average and linear layers follow, that is Grad-CAM
(Selvaraju et al. 2017); of an earlier, finer one it shows only what the model used at that place.
The model is divided at the layer whose activations are weighted: what lies before is computed once,
and only the rest, which is short for a late layer, is differentiated for each finding.
"""

from functools import lru_cache

import numpy as np

FINEST = 7  # places a side: what the published networks have at 224 pixels


def fine(model, layer) -> str:
    """Names the layer to explain: the given one, or before it the last with 7 x 7 places.

    On small pictures the last map of a deep network has so few places that it cannot point.

    Args:
        model: functional model of one picture.
        layer: name of its feature map.

    Returns:
        The name of a layer that all goes through that goes through the given one; that one itself
        where there is none so fine.
    """
    given = model.get_layer(layer)
    passing = len(_around(model, given.output))
    for one in reversed(model.layers[: model.layers.index(given) + 1]):
        shape = getattr(one.output, "shape", ())
        points = len(shape) == 4 and min(shape[1:3]) >= FINEST and (one.weights or one is given)
        if points and len(_around(model, one.output)) == passing:
            return one.name
    return layer


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
        activations = tf.cast(activations, tf.float32)
        maps = [tf.reduce_sum(tf.cast(one, tf.float32) * activations, -1) for one in gradients]
        return tf.nn.relu(tf.stack(maps, axis=1))

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
