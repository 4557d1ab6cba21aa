"""Each head of a model of two judged by itself, in a folder of its own.

    kl/, jsl/         each a whole run: its model without the other head, predictions, numbers,
                      explanations, report and card; what serves or compares a run takes it

and beside them, of both:

    predictions.csv   the rows of both side by side; what a head was not asked, for want of a known
                      label, is blank
    metrics.json      the content of both under "heads"
    predictor.json    how the whole model is built again; it answers through its heads' folders
"""

import pandas as pd

from medkeras.evaluation import evaluate, explain, report
from medkeras.files import atomic
from medkeras.models import fusion

KEYS = ["path", "patient", "split"]
# Head -> its layer, what marks the other's columns in the history, how it is judged.
ASKED = {
    "kl": ("grade", "jsl", {"task": "ordinal", "positive_from": 2}),  # osteoarthritis
    "jsl": ("jsl", "grade", {"task": "binary"}),
}


def each(model, data, run) -> dict:
    """Evaluates, explains and reports on each head, and writes the files above.

    Args:
        model: from `fusion.multitask`, trained.
        data: from `preparation.heads.both`.
        run: from `runs.start`.

    Returns:
        `evaluate.Scores` by head.
    """
    found = {}
    history = pd.read_csv(run.folder / "history.csv")
    for name, (layer, other, judged) in ASKED.items():
        own, view, head = run.head(name), data.head(name), fusion.alone(model, layer)
        atomic.write_csv(own.folder / "history.csv", history.filter(regex=f"^(?!.*{other})"))
        with atomic.writing(own.folder / "model.keras") as temporary:
            head.save(temporary)
        found[name] = evaluate.evaluate(head, view, own, **judged)
        cams = explain.grad_cam(head, view, own, saliency=True)
        report.write(own, head, view, found[name], cams)
        own.status("finished")

    kl, jsl = (scores.predictions for scores in found.values())
    rows = pd.concat([part.table[["path"]] for part in (data.val, data.test)])
    together = rows.merge(kl.merge(jsl, how="outer", on=KEYS), on="path")
    atomic.write_text(run.folder / "predictions.csv", evaluate.csv_text(together))
    heads = {name: scores.metrics for name, scores in found.items()}
    atomic.write_json(run.folder / "metrics.json", {"task": data.task, "heads": heads})
    tasks = {
        name: {"task": scores.task, "labels": scores.classes} for name, scores in found.items()
    }
    described = evaluate.predictor(model, data, data.task) | {"thresholds": None, "heads": tasks}
    atomic.write_json(run.folder / "predictor.json", described)
    return found
