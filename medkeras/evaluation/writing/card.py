"""The model card, `README.md` of a run: what the model is for, and what it is not for."""

from medkeras.evaluation.numbers import grades
from medkeras.evaluation.writing import card_findings
from medkeras.evaluation.writing.markdown import entry, plain, table

NOT_STATED = "_not stated_"


def text(run, data, scores, context) -> str:
    """Writes the card from what is known of the run; what nobody said stays visibly open.

    Args:
        run: `.experiment`, `.synthetic`, `.seed`.
        data: `pipeline.Data`.
        scores: from `evaluate.evaluate`.
        context: what the report was filled with.

    Returns:
        Markdown.
    """
    found, environment = scores.metrics, context["environment"]
    model, described = context["model"], context["data"]
    parts = [
        f"# {plain(run.experiment)}",
        "**Research use only, not a medical device.**",
    ]
    if context["null"]:
        parts.append(f"> **Null control, {context['null']}.** A model of nothing: never use it.")
    if run.synthetic:
        parts.append(
            "> **Synthetic sample data (phantoms).** These numbers say nothing about patients."
        )
    words, many = context["words"], scores.task == "multilabel"
    units = words["units"]
    answers = ", ".join(plain(name) for name in scores.classes)
    function = f"`{model['function']}`" if model["function"] else NOT_STATED
    skipped = sum(count for _, count in described["skipped"])
    parts += [
        "## Intended use",
        f"Research on {'recognising' if many else 'telling apart'} {answers} in {units} like "
        "those it was trained on. "
        f"Task: {scores.task}. Intended users, setting and population: {NOT_STATED}.",
        "## Out of scope",
        f"Diagnosis, triage or any decision about a patient; {units} of another body part, "
        f"modality or source than the training data; {units} that were exported, cropped or "
        "windowed differently.",
        "## Model",
        f"{function}, {model['layers']} layers, {model['parameters']:,} parameters, "
        f"{model['trainable']:,} of them trainable at the end. "
        f"Initial weights: {_or_open(model['weights'])}. "
        f"Input {plain(words['input'])}.",
        "## Data",
        f"Folder {plain(described['root'])}. Source and licence: {NOT_STATED}. "
        f"Ages, sexes, scanners: {NOT_STATED}.",
        _counts(described["counts"], words, many),
        "No patient is on two sides of the split"
        + (
            f", but **each {words['unit']} stands alone**: no patient is known, so {units} of one "
            "patient may be on two sides."
            if described["alone"]
            else "."
        )
        + f" Files left out because they could not be read: {skipped}."
        + card_findings.labels(context["labels"]),
        "## Results on the test part",
        card_findings.results(found) if many else _metrics(found, words),
        f"{_overall(found, context['verdict'], many)} Brier score {entry(found['brier'])}, "
        f"expected calibration error {entry(found['ece'])}. {found['n']} {units} of "
        f"{found['n_patients']} patients; 95 % intervals by resampling patients, none where fewer "
        f"than {found['bootstrap']['fewest_patients']} patients stand behind a number. "
        f"{context['asked']}".rstrip(),
        "## Training",
        _settings(context["hyperparameters"]) + f" Seed {run.seed}.",
        "## Limits",
        "One split, one seed; no external test set. Probabilities are not calibrated. "
        + _unmeasured(context["verdict"].get("undefined"), found)
        + card_findings.never(context["never"])
        + f"Performance by sex, age, scanner or hospital: {NOT_STATED}. Known failure cases: see "
        "the most confident mistakes in `report.html`.",
        "## How to load",
        f"`predictor.json` names the function that rebuilds the model and says how {units} are "
        "prepared; `model.keras` holds the weights.",
        "```python\nimport json\nfrom pathlib import Path\n\nfrom medkeras.models import recipe\n\n"
        'described = json.loads(Path("predictor.json").read_text())\n'
        'model = recipe.rebuild(described["recipe"])\n'
        'model.load_weights("model.keras")\n```',
        f"medkeras {_or_open(environment.get('medkeras'))}, Python "
        f"{_or_open(environment.get('python'))}. Contact and citation: {NOT_STATED}.",
    ]
    return "\n\n".join(parts) + "\n"


def _or_open(value):
    return NOT_STATED if value in (None, "") else plain(value)


def _value(value):
    return "undefined" if value is None else f"{value:.3f}"


def _overall(found, verdict, many):
    mean, said = found["mean"]["auc"], plain(verdict["words"])
    if many:
        defined = f"{mean['n_classes']} of {len(found['classes'])} findings"
        return f"{card_findings.scored(found)}Mean AUC {entry(mean)}, of {defined}. {said}"
    each = [f"{plain(name)} {entry(own)}" for name, own in grades.named(found).items()]
    of_grades = f" As grades: {', '.join(each)}." if each else ""
    return (
        f"Accuracy {entry(found['accuracy'])}; always answering “{plain(verdict['common'])}” "
        f"would give {_value(found['majority_accuracy'])}. {said}{of_grades}"
    )


def _unmeasured(names, found):
    if not names:
        return ""
    listed = (f"{plain(name)} ({found['classes'][name]['auc']['undefined']})" for name in names)
    return f"No AUC, so it is unknown whether they are told: {', '.join(listed)}. "


def _counts(counts, words, many):
    head = f"{words['units']} (patients)" + (", of known" if many else "")
    rows = [[plain(row["name"]), *map(_count, row["cells"])] for row in counts["rows"]]
    return table([head, *counts["parts"]], rows)


def _count(cell):
    known = f", of {cell['known']}" if "known" in cell else ""
    return f"{cell['n']} ({cell['patients']}){known}"


def _metrics(found, words):
    rows = []
    for name, own in found["classes"].items():
        cells = [entry(own[metric]) for metric in ("auc", "sensitivity", "specificity")]
        rows.append([plain(name), *cells, f"{own['auc']['n_positive']} / {own['auc']['n']}"])
    return table([words["label"], "AUC", "sensitivity", "specificity", "positives / n"], rows)


def _settings(values):
    if not values:
        return f"Hyperparameters: {NOT_STATED}."
    return (
        "Hyperparameters: " + ", ".join(f"{plain(k)} = {plain(v)}" for k, v in values.items()) + "."
    )
