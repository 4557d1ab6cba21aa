"""Knee X-rays: picture, risk factors, or both? What each knows of a later loss of joint space.

Three runs of knee_jsl_risk on the same split; comparison.html shows their paired differences on
the same test part, and how large one would have to be to be shown. RUN is one of knee_kl_grade.

    python experiments/knee_jsl_ablation.py --weights RUN                   # sample, CPU, 2 min
    python experiments/knee_jsl_ablation.py --weights RUN --data data/knee  # your data
    python experiments/knee_jsl_ablation.py --weights RUN --set factors=without_grade

Results: experiments/README.md.
"""

from functools import partial

import knee_jsl_risk

from medkeras.evaluation import compare
from medkeras.phantoms import knee_xray
from medkeras.training import runs

COMPARE = partial(compare.write, each_pair=True)
GRID = tuple({"use": word} for word in ("image", "risk", "both"))


def main(run):
    knee_jsl_risk.main(run)


if __name__ == "__main__":
    few = dict(sample=partial(knee_xray.write, patients=1200, films=None), sample_size=64)
    runs.start(main, __doc__, data="data/knee", **few, grid=GRID, compare=COMPARE)
