"""Knee MRI: which variant, learning rate and patience? The five published runs, side by side.

Each is a run of mrnet_views in a folder of its own; comparison.html shows AUC and loss of all
over the epochs, and their paired differences on the test part.

    python experiments/mrnet_grid.py                           # sample data, CPU, 8 min
    python experiments/mrnet_grid.py --data data/mrnet         # your exams
    python experiments/mrnet_grid.py --set task=meniscus
    python -m tensorboard.main --logdir saved_models/mrnet_grid

Results: experiments/README.md.
"""

import mrnet_views

from medkeras.evaluation import compare
from medkeras.phantoms import knee_mri
from medkeras.training import runs

# Published as "learning rate 0.6, 0.5" for what its folders and curves show to be 1e-6 and 1e-5.
GRID = (
    {"variant": "basic", "learning_rate": 1e-6, "patience": 3},
    {"variant": "relu", "learning_rate": 1e-5, "patience": 3},
    {"variant": "relu", "learning_rate": 1e-6, "patience": 3},
    {"variant": "leaky", "learning_rate": 1e-5, "patience": 3},
    {"variant": "leaky", "learning_rate": 1e-6, "patience": 1},
)


def main(run):
    mrnet_views.main(run)


if __name__ == "__main__":
    runs.start(
        main,
        __doc__,
        data="data/mrnet",
        sample=knee_mri.sample,
        sample_size=64,
        grid=GRID,
        compare=compare.write,
    )
