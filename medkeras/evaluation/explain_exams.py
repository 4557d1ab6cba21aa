"""Grad-CAM for exams: which slices of which plane spoke for a finding, and is it the lesion?

    explanations/<n>_<finding>.png           the most active slices of every plane, each beside
                                             its heat map, known lesions outlined
    explanations/<n>_<finding>_<plane>.npy   raw maps, float32 (slices, h, w), at the feature
                                             map's own resolution
    explanations/index.csv                   one row per exam and finding
    explanations/scores.json                 the pointing game against known lesion masks

A map is relu(sum over channels of weight x activation) of Selvaraju et al. 2017 and speaks for the
finding, whatever the model answered. What differs is the weight of a channel:

- per "place": the gradient at that place (Draelos and Carin 2020, "HiResCAM"). Only what the model
  used there is shown, so that also an early, fine layer can be explained; the default.
- per "slice": its mean over a slice. Under max pooling over slices the gradient of a channel
  reaches only the slice that won it. So a slice shows what it contributed: where average, maximum
  and a linear layer follow the feature map, the maps before relu add up to the logit less its bias,
  and both ways agree. On an earlier layer it may light up beside what was used.
- per "plane": its mean over all slices of a plane, as published for MRNet with three AlexNets. It
  also lights up slices that lost everywhere, and is here to compare with.
"""

from functools import lru_cache

import numpy as np
import pandas as pd

from medkeras.evaluation.evaluate import logits, probabilities
from medkeras.evaluation.heat import pointing
from medkeras.evaluation.heat.gallery import Explained, Gallery, picked, plain, write
from medkeras.evaluation.heat.overlays import montage
from medkeras.evaluation.writing.pages import share

# Axes of (slices, h, w, channels) that a channel's weight is the mean over.
WEIGHTS = {"place": (), "slice": (1, 2), "plane": (0, 1, 2)}


def grad_cam(model, data, run, most=12, per="place") -> Gallery:
    """Explains test exams, right and wrong answers to every finding, and scores the maps.

    The pointing game takes every test exam that has a finding and a known lesion of it: is the
    hottest point of all its planes and slices in the lesion? The slice game asks for less: is it
    on a slice that shows the lesion? A point of a coarse map stands for what a wide field around
    it holds, and may lie beside the lesion that it answers to.

    Args:
        model: functional model of exams with `feature_maps`.
        data: `exams.Data`.
        run: `.folder`, `.seed`, `.synthetic`.
        most: largest number of exams in the gallery, shared evenly between the findings.
        per: as in `heat`.

    Returns:
        The gallery, for the report. Its scores have an entry for each finding under "findings"
        and for all together under "pointing_game"; of the slice game under "slice_findings" and
        "slice_game".
    """
    part, findings = data.test, _findings(data)
    truth = part.labels.reshape(len(part), len(findings))
    chances = probabilities(logits(model, part.batches()), "multilabel")
    items, arrays = [], {}
    for number, finding in enumerate(findings):
        (known,) = np.nonzero(np.isfinite(truth[:, number]))
        chance = chances[known, number]
        sure = np.maximum(chance, 1 - chance)
        chosen = picked(truth[known, number], chance >= 0.5, sure, most // len(findings))
        for row in known[chosen]:
            name = f"{len(items):02d}_{plain(finding)}"
            item, maps = explained(model, part, row, number, name, per, run.synthetic)
            items.append(item)
            arrays |= maps
    method = {"layer": model.feature_map, "method": f"Grad-CAM (medkeras), weights per {per}"}
    scores = method | _games(model, part, truth, findings, run.seed, per)
    gallery = Gallery(model.feature_map, items, scores)
    write(gallery, arrays, run)
    return gallery


def explained(model, part, row, finding, name, per="place", synthetic=False):
    """Explains one exam for one finding.

    Args:
        model: as in `grad_cam`.
        part: of `exams.Data`.
        row: position of the exam in it.
        finding: number of the model's logit.
        name: of the picture and the maps; not the patient's, nor that of a file.
        per: as in `heat`.
        synthetic: whether the exam is a phantom.

    Returns:
        (what is shown, {"<name>_<plane>": raw maps}), for `gallery.write`.
    """
    inputs, title = part.inputs(np.array([row])), _findings(part.data)[finding]
    maps = heat(model, inputs, finding, per)
    volumes = {plane: part.volume(row, plane) for plane in maps}
    exam = part.table.iloc[row]
    lesions = _lesions(part, row, title, volumes)
    chance = float(probabilities(logits(model, [inputs]), "multilabel")[0, finding])
    absent = part.data.classes[0] if part.data.task == "binary" else f"no {title}"
    label = part.labels.reshape(len(part), -1)[row, finding]
    true = {0: absent, 1: title}.get(label, "unknown")
    words = f"Evidence for {title}. Model: {share(chance)}. Known answer: {true}."
    shown = Explained(
        png=montage(volumes, maps, lesions, words, synthetic=synthetic),
        file=f"{name}.png",
        path=str(exam["path"]),
        true=true,
        predicted=title if chance >= 0.5 else absent,
        probability=max(chance, 1 - chance),
        evidence=any(slices.any() for slices in maps.values()),
        lesion=bool(lesions),
        finding=title,
    )
    return shown, {f"{name}_{plane}": slices for plane, slices in maps.items()}


def heat(model, inputs, finding, per="place") -> dict[str, np.ndarray]:
    """Computes Grad-CAM maps of one exam.

    Args:
        model: functional model with `feature_maps`, {plane: tensor (slices, h, w, channels)}.
        inputs: what the model takes for the exam.
        finding: number of the logit that the maps speak for.
        per: "place", "slice" or "plane": what the gradient is averaged over; see above.

    Returns:
        {plane: float32 (slices, h, w)}, not negative, not rescaled.
    """
    return {
        plane: np.maximum(slices, 0)
        for plane, slices in evidence(model, inputs, finding, per).items()
    }


def evidence(model, inputs, finding, per="place") -> dict[str, np.ndarray]:
    """Computes what `heat` shows before relu: below 0 is what spoke against the finding."""
    graph = _graph(model, WEIGHTS[per])
    arrays = [np.asarray(a, i.dtype) for a, i in zip(inputs, model.inputs, strict=True)]
    maps = graph(arrays, np.int32(finding))
    return {plane: one.numpy() for plane, one in zip(model.feature_maps, maps, strict=True)}


@lru_cache(maxsize=2)  # tracing takes seconds; every exam and finding asks for it
def _graph(model, axes):
    import keras
    import tensorflow as tf

    # By tensor: a trunk that planes share has one output for each, and a layer knows but one.
    both = keras.Model(model.inputs, [*model.feature_maps.values(), model.output])
    signature = [tf.TensorSpec(one.shape, one.dtype) for one in model.inputs]

    @tf.function(input_signature=[signature, tf.TensorSpec((), tf.int32)])
    def graph(inputs, finding):
        with tf.GradientTape() as tape:
            *activations, values = both(inputs, training=False)
            score = tf.reduce_sum(tf.cast(values[:, finding], tf.float32))
        maps = []
        gradients = tape.gradient(score, activations)
        for activation, gradient in zip(activations, gradients, strict=True):
            weights = tf.reduce_mean(tf.cast(gradient, tf.float32), axis=axes, keepdims=True)
            maps.append(tf.reduce_sum(weights * tf.cast(activation, tf.float32), axis=-1))
        return maps

    return graph


def _findings(data):
    return list(data.classes)[1:] if data.task == "binary" else list(data.classes)


def _lesions(part, row, finding, volumes):
    # Under labels that are permuted, or pictures of noise, there are none: see `control`.
    if not part.data.table.attrs.get("lesions", True):
        return {}
    return pointing.lesions(part.table.iloc[row], finding, volumes)


def _games(model, part, truth, findings, seed, per):
    played = []
    for row, number in np.argwhere(truth == 1):
        exam = part.table.iloc[row]
        volumes = {plane: part.volume(row, plane) for plane in model.feature_maps}
        lesions = _lesions(part, row, findings[number], volumes)
        if lesions:
            maps = heat(model, part.inputs(np.array([row])), number, per)
            game = pointing.exam_game(maps, lesions, volumes)
            played.append(game | {"finding": findings[number], "patient": exam["patient"]})
    if not played:
        nothing = dict.fromkeys(findings)
        return {"findings": nothing, "pointing_game": None, "reason": pointing.UNKNOWN}
    table = pd.DataFrame(played)

    def score(of, finding=None):
        rows = table if finding is None else table[table["finding"] == finding]
        return pointing.scored(rows[of], rows[f"{of}_chance"], rows["patient"], seed)

    return {
        "findings": {finding: score("point", finding) for finding in findings},
        "pointing_game": score("point"),
        "slice_findings": {finding: score("slice", finding) for finding in findings},
        "slice_game": score("slice"),
    }
