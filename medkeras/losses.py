"""Losses and their live metrics, all computed from logits.

Models end in linear logits; softmax and sigmoid live in evaluation and serving. (The published
bone X-ray study passed `from_logits=True` over a softmax, which trains on twice-squashed scores
wherever Keras does not happen to look through the activation.)
"""

import keras


def cross_entropy(outputs):
    """Returns the cross-entropy of integer class labels.

    Args:
        outputs: number of logits: 1 for two classes with labels 0 and 1, else one a class.

    Returns:
        A Keras loss: binary for one output, sparse categorical for more.
    """
    if outputs == 1:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def accuracy(outputs):
    """Returns the accuracy metric that goes with `cross_entropy`, named "accuracy".

    Args:
        outputs: number of logits. One logit says class 1 where it is above 0, which is a
            probability above one half.

    Returns:
        A fresh Keras metric.
    """
    if outputs == 1:
        return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")


def compiled(model, optimizer):
    """Compiles a classifier: cross-entropy of its logits, accuracy as the live metric.

    Args:
        model: ends in logits (batch, outputs).
        optimizer: a Keras optimizer.

    Returns:
        The model.
    """
    outputs = model.output_shape[-1]
    model.compile(optimizer, cross_entropy(outputs), metrics=[accuracy(outputs)])
    return model
