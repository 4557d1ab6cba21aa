"""Do the probabilities mean what they say? Reliability bins and their mean error.

Nothing is fitted here: `predictor.json` says `"calibration": null` until a calibration exists.
"""

import numpy as np
import pandas as pd

BINS = 10
FEWEST = 15


def reliability(probabilities, outcomes, bins=None):
    """Groups predictions into bins of equal mass and compares them with what happened.

    Equal mass (Nguyen and O'Connor 2015) rather than equal width: no bin is nearly empty, so no
    point of the plot rests on one picture. Equal probabilities always share a bin.

    Args:
        probabilities: (n,) predicted, 0..1.
        outcomes: (n,) 1 where it happened, else 0.
        bins: most bins to make; None for 10, or fewer so that each holds about 15 or more.
            Fewer come out where there are fewer distinct probabilities.

    Returns:
        DataFrame with one row per bin: predicted (mean), observed (share), n, low, high (95 %
        interval of the share after Wilson 1927, which treats pictures as independent).
    """
    probabilities = np.asarray(probabilities, dtype=float)
    outcomes = np.asarray(outcomes, dtype=float)
    columns = ["predicted", "observed", "n", "low", "high"]
    if len(probabilities) == 0:
        return pd.DataFrame(columns=columns)
    bins = bins or min(BINS, max(1, len(probabilities) // FEWEST))
    ranks = pd.Series(probabilities).rank(method="min").to_numpy() - 1
    of_bin = np.floor(ranks * min(bins, len(probabilities)) / len(probabilities)).astype(int)
    rows = []
    for one in np.unique(of_bin):
        inside = of_bin == one
        n, observed = int(inside.sum()), float(outcomes[inside].mean())
        rows.append([float(probabilities[inside].mean()), observed, n, *wilson(observed, n)])
    return pd.DataFrame(rows, columns=columns)


def expected_error(probabilities, outcomes, bins=None):
    """Expected calibration error: the bins' |predicted - observed|, weighted by their size.

    Naeini et al. 2015 with bins of equal mass. It is above 0 by chance alone on few pictures.

    Returns:
        0..1, or NaN without pictures.
    """
    table = reliability(probabilities, outcomes, bins)
    if table.empty:
        return float("nan")
    gaps = (table["predicted"] - table["observed"]).abs()
    return float((gaps * table["n"]).sum() / table["n"].sum())


def wilson(share, n):
    """95 % interval of a share of n independent trials (Wilson 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
