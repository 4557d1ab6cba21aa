"""Chest X-rays: what should training make of uncertain labels? Five policies, side by side.

Each is a run of chexpert_densenet in a folder of its own, on the same split; comparison.html shows
their paired differences on the same test part, which no policy touches.

    python experiments/chexpert_policies.py                        # sample data, CPU
    python experiments/chexpert_policies.py --data data/chexpert   # your X-rays
    python experiments/chexpert_policies.py --set backbone=mobilenet_v2 --set frozen=true

Results: experiments/README.md.
"""

from functools import partial

import chexpert_densenet

from medkeras.evaluation import compare
from medkeras.phantoms import chest
from medkeras.training import runs

POLICIES = ("ignore", "zeros", "ones", "soft", "multiclass")
COMPARE = partial(compare.write, each_pair=True)
GRID = tuple({"uncertain": word} for word in POLICIES)


def main(run):
    chexpert_densenet.main(run)


if __name__ == "__main__":
    sample = dict(sample=chest.write, sample_size=64)
    runs.start(main, __doc__, data="data/chexpert", **sample, grid=GRID, compare=COMPARE)
