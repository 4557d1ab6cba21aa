"""Statistics for the batch norms of a random frozen backbone."""

import keras
import numpy as np

from medkeras.preparation import pipeline
from medkeras.training import cut

SETTLING_PICTURES = 32
_settled = {}  # statistics by trunk and data: the trials of a sweep share them


def settle(model, data) -> bool:
    """Sets the statistics of a random frozen backbone's batch norms from training pictures.

    Random features of a deep backbone are tiny (about 1e-5), under the epsilon of batch
    norm; with the initial statistics (mean 0, variance 1) nothing could be learned from
    them. Pretrained statistics are left alone, also those of a backbone beside a random one.

    Args:
        model: functional model.
        data: from `pipeline.images`; some of its training pictures are used, spread evenly.

    Returns:
        Whether there was anything to set.
    """
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.trainable
    ]
    # Norms that several planes share, of shallow stacks, keep theirs: one statistic for all.
    if data.unit == "exam" or not norms:
        return False
    border = cut.cut(model)
    ends = [t for ends in border.fixed.values() for t in ends] if border else [model.output]
    settled = False
    for together in cut.apart(ends):
        trunk = keras.Model(model.input, together)
        layers = {id(layer) for layer in trunk.layers}
        own = [norm for norm in norms if id(norm) in layers]
        if own and all(_untouched(norm) for norm in own):
            _set(trunk, own, data)
            settled = True
    return settled


def _set(trunk, norms, data):
    known = cut.fingerprint(trunk), data.key, data.train.rows.tobytes()
    if known not in _settled:
        rows = np.linspace(0, len(data.train) - 1, SETTLING_PICTURES).astype(int)
        _settled[known] = _statistics(trunk, norms, data.train.inputs(np.unique(rows)))
    for norm, values in zip(norms, _settled[known], strict=True):
        norm.moving_mean.assign(values[0])
        norm.moving_variance.assign(values[1])


def _statistics(trunk, norms, inputs):
    """Runs pictures through the trunk once, each batch norm by the statistics it sees."""
    import tensorflow as tf

    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.trainable, norm.momentum = True, 0.0

    # In a graph, which drops each activation after its last use; called directly, Keras
    # would keep all of them: 300 MB a picture for Xception.
    @tf.function(autograph=False)
    def forward(x):
        trunk(x, training=True)

    forward(pipeline.as_tensors([inputs])[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.trainable, norm.momentum = False, momentum
    return [(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms]


def _untouched(norm) -> bool:
    return not np.any(norm.moving_mean.numpy()) and np.all(norm.moving_variance.numpy() == 1)
