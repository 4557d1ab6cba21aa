"""What uncertain test labels leave open: the smallest and the largest AUC that they allow."""

import numpy as np


def auc(labels, scores, uncertain) -> tuple[float, float] | None:
    """Finds the smallest and the largest AUC over all resolutions of the uncertain labels.

    A resolution sets each uncertain label to 0 or 1; known labels stay. Ties count half. There
    are 2^m resolutions, but only m + 1 need a look. With j of the m positive, the best one makes
    the j highest scores positive: were a lower one positive and a higher one negative, exchanging
    the two labels would keep the number of (positive, negative) pairs and rank none of them
    worse. In the same way the worst one makes the j lowest scores positive. The AUC of the known
    labels alone may lie outside: it is of other pictures.

    Args:
        labels: (n,) 1, 0 or NaN. NaN that is not uncertain is left out.
        scores: (n,) finite numbers, higher for positive.
        uncertain: (n,) bool; it counts only where the label is NaN.

    Returns:
        (lowest, highest) of the resolutions in which both classes exist; None if there is none.
    """
    labels, scores = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    unresolved = scores[np.asarray(uncertain, dtype=bool) & np.isnan(labels)]
    positive, negative = scores[labels == 1], scores[labels == 0]
    highest = _highest(positive, negative, unresolved)
    if highest is None:
        return None
    # Reversed scores turn an AUC into one minus it, and the lowest into the highest.
    return 1 - _highest(-positive, -negative, -unresolved), highest


def _highest(positive, negative, unresolved):
    """Largest AUC; the highest of the unresolved scores become positive one after the other."""
    count = len(unresolved)
    turned = np.arange(count + 1)
    pairs = (len(positive) + turned) * (len(negative) + count - turned)
    if not pairs.any():
        return None
    order = np.sort(unresolved)[::-1]
    start = _below(negative, positive).sum() + _below(unresolved, positive).sum()
    # Where a score turns, those above it are positive already and those below it still negative;
    # of scores equal to it, either kind counts half.
    above, below = np.arange(count), count - 1 - np.arange(count)
    equal_above = above - np.searchsorted(-order, -order, side="left")
    equal_below = np.searchsorted(-order, -order, side="right") - 1 - above
    won = _below(negative, order) + below - equal_below / 2
    lost = len(positive) - _below(positive, order) + above - equal_above / 2
    ranked = start + np.concatenate([[0.0], np.cumsum(won - lost)])
    return float((ranked[pairs > 0] / pairs[pairs > 0]).max())


def _below(among, scores):
    """How many of `among` lie below each score, ties counted half."""
    ordered = np.sort(among)
    left, right = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return (left + right) / 2
