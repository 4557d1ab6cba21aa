"""Grad-CAM for pictures with many findings, LIME beside it, and whether they show the lesions.

    explanations/<n>_<finding>.png        the picture, then the heat map of each of its most
                                          probable findings, known lesions outlined; of some
                                          pictures also LIME for the most probable one
    explanations/maps.npy                 float32 (pictures, findings, h, w): the raw maps of all
                                          findings, at the feature map's own resolution
    explanations/<n>_<finding>_lime.npy   float32 (height, width): weights of LIME's regions
    explanations/index.csv                one row per picture, and the finding it was chosen for
    explanations/scores.json              the pointing game against known lesion masks

A map speaks for a finding, whatever the model answered; `explain_maps` computes it.
"""

import numpy as np

from medkeras.evaluation.evaluate import logits, probabilities
from medkeras.evaluation.heat import lime as lime_regions
from medkeras.evaluation.heat import pointing
from medkeras.evaluation.heat.explain_maps import beside, fine, heat
from medkeras.evaluation.heat.gallery import Explained, Gallery, plain, write
from medkeras.evaluation.heat.overlays_findings import Answer, sheet
from medkeras.evaluation.writing.pages import share


def grad_cam(model, data, run, layer=None, most=12, top=3, lime=2, scored=()) -> Gallery:
    """Explains test pictures, right and wrong answers, and scores the maps of known lesions.

    The pointing game takes every test picture and finding that is present and has a mask. Findings
    that the training part could not teach are neither shown nor scored.

    Args:
        model: functional model of one picture with a `feature_map`; its first logits are those of
            the findings.
        data: `pipeline.Data` of findings.
        run: `.folder`, `.seed`, `.synthetic`.
        layer: name of a layer with output (batch, height, width, channels); None for
            `model.feature_map`, or a finer one before it (see `explain_maps.fine`).
        most: largest number of pictures in the gallery.
        top: findings of a picture that are shown, the most probable ones; the one that it was
            chosen for is always among them.
        lime: of how many pictures LIME is shown too; each costs 1000 predictions.
        scored: findings that pictures are chosen for, such as `chexpert.SCORED`; () for all.

    Returns:
        The gallery, for the report. Its scores have an entry for each finding under "findings",
        for all together under "pointing_game", and what the maps do not say under "notes".
    """
    layer = layer or fine(model, model.feature_map)
    part, findings = data.test, list(data.findings)
    chances = probabilities(logits(model, part.batches())[:, : len(findings)], "multilabel")
    learned = [k for k, name in enumerate(findings) if name not in data.untrained]
    first = [k for k in learned if findings[k] in scored]
    chosen = picked(part.labels, chances, first or learned, most)
    pictures = part.pictures(np.array([row for row, _ in chosen], dtype=int))
    size = data.batch_size
    batches = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    maps = heat(model, batches, layer, len(findings))

    lesions, notes = _lesions(part), beside(model, layer)
    items, arrays = [], {"maps": maps}
    for n, (row, finding) in enumerate(chosen):
        name = f"{n:02d}_{plain(findings[finding])}"
        ranked = sorted(learned, key=lambda k: -chances[row, k])[:top]
        ranked += [finding] * (finding not in ranked)
        answers = [
            Answer(findings[k], said(part, row, k, chances), maps[n, k], lesions(row, k))
            for k in ranked
        ]
        regions = None
        if n < lime:
            regions = _regions(model, pictures[n], ranked[0], len(findings), run.seed)
            arrays[f"{name}_lime"] = regions.weights
        chance, words = chances[row, finding], (f"no {findings[finding]}", findings[finding])
        items.append(
            Explained(
                png=sheet(pictures[n], answers, regions, notes, run.synthetic),
                file=f"{name}.png",
                path=str(part.table["path"].iloc[row]),
                true=words[int(part.labels[row, finding])],
                predicted=words[int(chance >= 0.5)],
                probability=float(max(chance, 1 - chance)),
                evidence=bool(maps[n, finding].any()),
                lesion=any(one.mask is not None for one in answers),
                finding=findings[finding],
            )
        )
    scores = {"layer": layer, "method": "Grad-CAM (medkeras), weights per place", "notes": notes}
    scores |= _games(model, data, layer, learned, lesions, run.seed)
    gallery = Gallery(layer, items, scores)
    write(gallery, arrays, run)
    return gallery


def picked(labels, chances, findings, most) -> list[tuple[int, int]]:
    """Chooses pictures, finding by finding in turn: its worst answers and its best hits.

    Args:
        labels: (n, k), 1, 0 or NaN.
        chances: (n, k), probabilities.
        findings: columns that are served, in this order.
        most: largest number of pictures.

    Returns:
        (row, finding) of pictures of which each is there once: by turns the one whose known label
        the model contradicts most, and the one with the finding that it is surest of.
    """
    queues = {}
    for k in findings:
        wrong = np.abs(labels[:, k] - chances[:, k])
        order = np.argsort(-wrong, kind="stable")[: np.isfinite(wrong).sum()]
        hits = [row for row in order[::-1] if labels[row, k] == 1]
        queues[k] = [list(order), hits]
    chosen, taken = [], set()
    for turn in range(most):
        for place, k in enumerate(findings):
            queue = [row for row in queues[k][(turn + place) % 2] if row not in taken]
            if queue and len(chosen) < most:
                chosen.append((int(queue[0]), k))
                taken.add(queue[0])
    return chosen


def said(part, row, finding, chances) -> str:
    """Words a probability, and what is known: present, absent, uncertain or unknown."""
    words = {1: "present", 0: "absent"}.get(part.labels[row, finding])
    if words is None:
        words = "uncertain" if part.uncertain[row, finding] else "unknown"
    return f"{share(chances[row, finding])}, known: {words}"


def _lesions(part):
    """Returns a function from row and finding to the known lesion, or None."""
    table, findings, shape = part.table, part.data.findings, part.data.image_shape[:2]
    # Under labels that are permuted, or pictures of noise, there are none: see `control`.
    there = table.attrs.get("lesions", True)

    def lesion(row, finding):
        if not there or part.labels[row, finding] != 1:
            return None
        return pointing.marked(table.iloc[row], findings[finding], shape)

    return lesion


def _regions(model, picture, finding, findings, seed):
    def predict(pictures):
        return probabilities(logits(model, [[pictures]])[:, :findings], "multilabel")

    return lime_regions.explain(predict, picture, finding, seed=seed)


def _games(model, data, layer, learned, lesions, seed):
    part, played = data.test, []
    patients = part.table["patient"].to_numpy()
    for start in range(0, len(part), data.batch_size):
        rows = range(start, min(start + data.batch_size, len(part)))
        masks = {(row, k): lesions(row, k) for row in rows for k in learned}
        masks = {place: mask for place, mask in masks.items() if mask is not None}
        rows = sorted({row for row, _ in masks})
        pictures = [part.pictures(np.array(rows))] if rows else []
        maps = heat(model, pictures, layer, len(data.findings))
        for (row, k), mask in masks.items():
            coarse = {"picture": maps[rows.index(row), k][None]}
            hit, _ = pointing.hits(coarse, {"picture": mask[None]})
            played.append((data.findings[k], hit, mask.mean(), patients[row]))
    return pointing.by_finding(played, [data.findings[k] for k in learned], seed)
