"""One step of training and of testing: Keras's own, with the loss counted by rows.

Keras's steps average the loss of an epoch by the length of the first input, which for exams is a
number of slices: long exams would count for more, and validation would select by them.
"""


def train(model):
    """Makes the training step of a compiled model: a function of a batch (inputs, labels, ...)."""
    import tensorflow as tf

    def step(batch):
        inputs, labels, weights = _unpacked(batch)
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = model.compute_loss(inputs, labels, logits, weights, training=True)
            scaled = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        _count(model, loss, labels)
        return model.compute_metrics(inputs, labels, logits, weights)

    return step


def test(model):
    """Makes the step that only measures: no dropout, no update."""

    def step(batch):
        inputs, labels, weights = _unpacked(batch)
        logits = model(inputs, training=False)
        loss = model.compute_loss(inputs, labels, logits, weights, training=False)
        _count(model, loss, labels)
        return model.compute_metrics(inputs, labels, logits, weights)

    return step


def _unpacked(batch):
    inputs, labels, *weights = batch
    return inputs, labels, weights[0] if weights else None


def _count(model, loss, labels):
    import tensorflow as tf

    # Keras divides a replica's loss by their number.
    loss = loss * model.distribute_strategy.num_replicas_in_sync
    model._loss_tracker.update_state(loss, sample_weight=tf.shape(labels)[0])
