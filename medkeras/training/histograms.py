"""Distributions of weights, biases and gradients, per variable and epoch.

The gradients are those of the training loss (regularisation included, dropout off, batch
norms at their running statistics) on one stated batch: the first training pictures in the
table's order, first view. It is small, so that looking costs a few per cent of training.
Variables that learn are written each epoch, frozen ones once.
"""

import numpy as np

PROBE_SHARE, PROBE_LEAST = 1 / 32, 4


class Histograms:
    """Writes the distributions of one stage.

    Args:
        board: `board.Board`.
        model: the whole model, for what is frozen.
        trained: the model that is trained: the whole, or its tail on features.
        probe: inputs, labels and, where the classes are weighted, weights of the batch.
    """

    def __init__(self, board, model, trained, probe):
        import tensorflow as tf

        self.board, self.trained, self.probe = board, trained, probe
        named = names(model)
        self.learning = [(named[id(v)], v) for v in trained.trainable_variables]
        learning = {id(variable) for _, variable in self.learning}
        self.frozen = [
            (named[id(v)], v)
            for layer in model.layers
            for v in layer.weights
            if id(v) not in learning
        ]
        self.description = f"training loss on the first {len(probe[1])} training pictures, view 0"

        strategy = trained.distribute_strategy

        def gradients(x, y, weight=None):
            with tf.GradientTape() as tape:
                logits = trained(x, training=False)
                loss = trained.compute_loss(x, y, logits, sample_weight=weight, training=False)
                # Keras divides a replica's loss by their number; each sees the whole batch here.
                loss = loss * strategy.num_replicas_in_sync
            return tape.gradient(loss, [v.value for v in trained.trainable_variables])

        def of_one_replica(*batch):
            found = strategy.run(gradients, args=batch)
            return [strategy.experimental_local_results(gradient)[0] for gradient in found]

        self._gradients = tf.function(of_one_replica, autograph=False)

    def write(self, epoch: int, first: bool) -> None:
        """Writes one epoch.

        Args:
            epoch: step on TensorBoard's axis, counted over all stages.
            first: whether it is the stage's first, when frozen variables are written.
        """
        for name, variable in [*self.learning, *(self.frozen if first else [])]:
            self.board.histogram(epoch, f"{_kind(variable)}/{name}", variable.numpy())
        for (name, _), gradient in zip(self.learning, self.now(), strict=True):
            self.board.histogram(epoch, f"gradients/{name}", gradient, self.description)

    def now(self) -> list[np.ndarray]:
        """Returns the gradients at the present weights, one array a trainable variable."""
        return [np.asarray(gradient) for gradient in self._gradients(*self.probe)]


def probe_size(pictures: int, batch_size: int) -> int:
    """Returns the number of pictures whose gradients are looked at: 1/32 of the training set.

    Args:
        pictures: in the training part.
        batch_size: upper limit.
    """
    return int(min(pictures, batch_size, max(PROBE_LEAST, round(PROBE_SHARE * pictures))))


def names(model) -> dict:
    """Names every variable of a model once: `<layer>/<variable>`, by the variable's id."""
    return {id(v): f"{layer.name}/{v.name}" for layer in model.layers for v in layer.weights}


def _kind(variable):
    return "biases" if variable.name in ("bias", "beta") else "weights"
