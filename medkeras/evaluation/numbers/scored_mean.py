"""The mean over the findings that a data set is scored by, by picture and by study.

CheXpert (Irvin et al., AAAI 2019, arXiv 1901.07031) ranks models by the unweighted mean of the
AUCs of five findings. It judges studies, not pictures: a study's probability of a finding is the
largest one among its pictures. Means leave out findings in which the number is undefined.
"""

from medkeras.evaluation.numbers import questions

KEYS = ["patient", "study"]  # studies are numbered anew for each patient


def means(classes, draws, scored, n) -> dict:
    """Averages the areas under both curves over the scored findings.

    Args:
        classes: {finding: {metric: entry}}.
        draws: from `questions.drawn`, of the same part.
        scored: names of the findings.
        n: number of pictures.
    """
    own = {name: classes[name] for name in scored}
    means = {metric: questions.mean(own, draws, metric, n) for metric in ("auc", "pr_auc")}
    return {"findings": list(scored), **means}


def by_study(table, scored, untrained, resamples, seed, dropped) -> dict:
    """Averages the AUC of the scored findings over studies instead of pictures.

    Args:
        table: one part of `predictions.csv`, with `study`.
        scored: names of the findings.
        untrained: those of them that training could not teach.
        resamples: of patients.
        seed: of the bootstrap.
        dropped: dict that the numbers of undefined resamples are added to.
    """
    grouped = studies(table, scored)
    patients = grouped["patient"].astype(str).to_numpy()
    asked = {}
    for name in scored:
        label, chance = (grouped[f"{kind}_{name}"] for kind in ("label", "probability"))
        label, chance = label.to_numpy(float), chance.to_numpy(float)
        question = questions.of_class(label, chance, chance >= 0.5)["auc"]
        asked[name, "auc"] = questions.never(question) if name in untrained else question
    draws, lost = questions.drawn(asked, patients, resamples, seed), {}
    found = questions.answered(asked, draws, patients, lost)
    dropped |= {f"by study/{name}": count for name, count in lost.items()}
    classes = {name: {"auc": found[name, "auc"]} for name in scored}
    return {"auc": questions.mean(classes, draws, "auc", len(grouped))}


def studies(table, findings):
    """Makes a row of each study: its label, and the largest probability among its pictures.

    Pictures of a study share its labels. Where they do not, a finding in one is in the study.

    Args:
        table: as `predictions.csv`, with `study`.
        findings: their names.

    Returns:
        DataFrame with `patient`, `study`, and `label_`, `probability_` of each finding.
    """
    columns = [f"{kind}_{name}" for name in findings for kind in ("label", "probability")]
    return table.groupby(KEYS, sort=False, dropna=False)[columns].max().reset_index()
