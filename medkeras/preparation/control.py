"""The null control: what a pipeline finds where there is nothing to find."""

import numpy as np
import pandas as pd


def permuted(table, seed) -> pd.DataFrame:
    """Gives each patient the label of another, drawn at random.

    Args:
        table: from a reader.
        seed: of the permutation.
    """
    firsts = table.groupby("patient", sort=True)[["label", "class"]].first()
    shuffled = firsts.iloc[np.random.default_rng(seed).permutation(len(firsts))]
    shuffled.index = firsts.index
    result = table.copy()
    result[["label", "class"]] = shuffled.loc[table["patient"]].to_numpy()
    return result.astype({"label": "int64"})
