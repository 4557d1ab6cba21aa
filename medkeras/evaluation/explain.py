"""Grad-CAM: which part of the picture spoke for an answer, and is it the lesion?

    explanations/<n>_<class>.png   picture | heat map over it | saliency, where asked for | known
                                   lesion, where there is one
    explanations/maps.npy          the raw maps, float32, at the feature map's own resolution
    explanations/saliency.npy      raw saliency, float32, at that of the picture; see `saliency`
    explanations/index.csv         one row per map
    explanations/scores.json       the pointing game against known lesion masks

A map is relu(sum over channels of mean gradient x activation) of Selvaraju et al. 2017, computed
for whole batches in one graph. For display it is divided by its own maximum; a map that is zero
everywhere stays so, and says "no positive evidence" instead of painting a hot spot.
"""

from types import SimpleNamespace

import numpy as np

from medkeras.evaluation.evaluate import logits, probabilities
from medkeras.evaluation.heat import pointing
from medkeras.evaluation.heat import saliency as gradients
from medkeras.evaluation.heat.explain_maps import beside
from medkeras.evaluation.heat.gallery import Explained, Gallery, picked, plain, write
from medkeras.evaluation.heat.overlays import panel
from medkeras.preparation import pipeline


def grad_cam(
    model, data, run, layer=None, most=24, backend="medkeras", saliency=False, views=1
) -> Gallery | None:
    """Explains test pictures, right and wrong answers, and scores the maps.

    Each map is for the answer the model gave. The pointing game asks for the true class instead,
    on every test picture with a known lesion: it tests where the model sees that class.

    Args:
        model: functional model with a `feature_map`.
        data: `pipeline.Data`.
        run: `.folder`, `.seed`, `.synthetic`.
        layer: name of a layer with output (batch, height, width, channels); None for
            `model.feature_map`.
        most: largest number of pictures in the gallery.
        backend: "medkeras", or "tf-explain" for the maps of that package.
        saliency: whether the gallery shows the gradient at the pixels beside each map.
        views: how the model was evaluated, see `evaluate.logits`; the maps are of the picture
            as it is.

    Returns:
        The gallery, for the report; None of a model that sees no picture.
    """
    if all(len(tensor.shape) != 4 for tensor in model.inputs):
        return None
    layer = layer or model.feature_map
    part, table = data.test, data.test.table
    task = "binary" if model.output_shape[-1] == 1 else "multiclass"
    chances = probabilities(logits(model, part.batches(), views), task)
    if task == "binary":
        chances = np.hstack([1 - chances, chances])
    answers = chances.argmax(axis=1)
    chosen = picked(part.labels, answers, chances.max(axis=1), most)

    def batches(rows):
        size = data.batch_size
        return (part.inputs(rows[start : start + size]) for start in range(0, len(rows), size))

    def maps(rows, targets):
        return heat(model, batches(rows), layer, targets, backend)

    arrays = {"maps": maps(chosen, answers[chosen])}
    notes = {}
    if saliency:
        arrays["saliency"] = gradients.maps(model, batches(chosen), answers[chosen])
        notes = {"saliency": gradients.METHOD}
    masks = pointing.masks(table, data.image_shape[:2])
    items = []
    for n, (row, coarse) in enumerate(zip(chosen, arrays["maps"], strict=True)):
        picture = part.pictures(np.array([row]))[0]
        fine = arrays["saliency"][n] if saliency else None
        items.append(
            Explained(
                png=panel(picture, coarse, masks.get(row), run.synthetic, fine),
                file=f"{n:02d}_{plain(data.classes[part.labels[row]])}.png",
                path=str(table["path"].iloc[row]),
                true=data.classes[part.labels[row]],
                predicted=data.classes[answers[row]],
                probability=float(chances[row, answers[row]]),
                evidence=bool(coarse.max() > 0),
                lesion=row in masks,
            )
        )
    marked = np.array(sorted(masks), dtype=int)
    scores = {"layer": layer, "method": f"Grad-CAM ({backend})", **notes} | pointing.game(
        maps(marked, part.labels[marked]) if len(marked) else [],
        [masks[row] for row in marked],
        table["patient"].to_numpy()[marked],
        run.seed,
    )
    if told := beside(model, layer):
        scores["notes"] = told
    gallery = Gallery(layer, items, scores)
    write(gallery, arrays, run)
    return gallery


def heat(model, batches, layer, targets, backend="medkeras") -> np.ndarray:
    """Computes Grad-CAM maps.

    Args:
        model: functional model, logits out; one logit means class 1 against class 0, and the
            evidence for class 0 is that against class 1.
        batches: iterable of uint8 (batch, height, width, channels), or of the lists of a model
            with more inputs, pictures first.
        layer: name of the layer whose activations are weighted.
        targets: (n,) class each map argues for.
        backend: "medkeras" or "tf-explain" (its guided gradients off, the relu added).

    Returns:
        float32 (n, height, width) at the layer's resolution, not negative, not rescaled.
    """
    import keras
    import tensorflow as tf

    features = model.get_layer(layer).output
    if len(features.shape) != 4:
        raise ValueError(f"layer {layer!r} gives {features.shape}: a feature map is needed")
    outputs = int(model.output_shape[-1])
    targets = np.asarray(targets, dtype=int)
    directions = np.eye(max(outputs, 2), dtype=np.float32)[targets]
    if outputs == 1:
        directions = np.where(targets == 1, 1, -1).astype(np.float32)[:, None]
    both = keras.Model(model.input, [features, model.outputs[0]])

    @tf.function(reduce_retracing=True)
    def maps(inputs, direction):
        with tf.GradientTape() as tape:
            (inputs,) = pipeline.as_tensors([inputs])
            tape.watch(inputs)  # or nothing is recorded where every layer is frozen
            activations, values = both(inputs, training=False)
            score = tf.reduce_sum(tf.cast(values, tf.float32) * direction)
        gradients = tf.cast(tape.gradient(score, activations), tf.float32)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * tf.cast(activations, tf.float32), axis=-1))

    found, start = [], 0
    for batch in batches:
        inputs = batch if isinstance(batch, list) else [batch]
        direction = directions[start : start + len(inputs[0])]
        start += len(inputs[0])
        if backend == "tf-explain":
            found.append(_by_tf_explain(model, inputs[0], layer, direction))
        else:
            found.append(maps([*map(np.ascontiguousarray, inputs)], direction).numpy())
    return np.concatenate(found) if found else np.empty((0, 1, 1), np.float32)


def _by_tf_explain(model, batch, layer, directions):
    """Maps of tf-explain's GradCAM, which takes one class for a whole batch."""
    from tf_explain.core.grad_cam import GradCAM

    # It wraps `inputs` in a list once more, which Keras 3 takes for another structure.
    flat = SimpleNamespace(inputs=model.input, output=model.outputs[0], get_layer=model.get_layer)
    found = np.empty((len(batch), *model.get_layer(layer).output.shape[1:3]), np.float32)
    for direction in np.unique(directions, axis=0):
        rows = np.flatnonzero((directions == direction).all(axis=1))
        target = int(np.abs(direction).argmax())
        activations, gradients = GradCAM.get_gradients_and_filters(
            flat, batch[rows].astype(np.float32), layer, target, use_guided_grads=False
        )
        maps = GradCAM.generate_ponderated_output(activations, gradients)
        found[rows] = np.maximum(np.stack(maps) * direction[target], 0)
    return found
