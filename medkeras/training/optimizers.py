"""Optimizers that Keras lacks, and one that several pages start whole networks with."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="medkeras")
class CoupledAdam(keras.optimizers.Adam):
    """Adam whose weight decay is part of the gradient, as PyTorch's `Adam(weight_decay=...)`.

    Keras's `weight_decay` shrinks the weights beside the step (AdamW), which with the small
    learning rates of published knee MRI networks does next to nothing. An L2 term in the loss has
    the same gradient as this, but falls from epoch to epoch by itself: the loss that chooses the
    best epoch would count it as progress.

    Args:
        learning_rate: step size.
        decay: factor of the weights, biases and norms included, in their gradient; at least 0.
        **kwargs: of `keras.optimizers.Adam`.
    """

    def __init__(self, learning_rate=1e-3, decay=0.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.decay = decay

    def update_step(self, gradient, variable, learning_rate):
        decayed = gradient + self.decay * ops.cast(variable, gradient.dtype)
        super().update_step(decayed, variable, learning_rate)

    def get_config(self):
        return super().get_config() | {"decay": self.decay}


def averaging(rate, data, epochs, momentum=0.985):
    """Makes an Adam for whole networks that begin with weights worth keeping.

    Its learning rate rises for a tenth of the steps, because Adam's first steps move every
    weight by the full rate and would undo what the weights know; then it falls along a cosine
    (Loshchilov and Hutter, arXiv 1608.03983). The running means of the weights are what the loop
    judges and keeps.

    Args:
        rate: largest learning rate.
        data: from `pipeline.images`: how many steps an epoch has.
        epochs: that the stage takes.
        momentum: of the running means, 0..1: they reach back about 1 / (1 - momentum) steps.
    """
    steps = epochs * -(-len(data.train) // data.batch_size)
    warm = max(steps // 10, 1)
    falling = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm, alpha=0.01, warmup_target=rate, warmup_steps=warm
    )
    return keras.optimizers.Adam(falling, use_ema=True, ema_momentum=momentum)
