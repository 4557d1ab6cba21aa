"""Optimizers that Keras lacks."""

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
