"""What the model card says of many findings: results, the scored mean, uncertain labels."""

from medkeras.evaluation.writing import findings
from medkeras.evaluation.writing.markdown import entry, plain, table


def results(found) -> str:
    """Makes the table of findings: scored ones first, bounds where some are uncertain."""
    classes, marked = found["classes"], findings.scored(found)
    bounded = any("auc_bounds" in own for own in classes.values())
    head = ["finding", "n", "positives", "AUC", "sensitivity", "specificity", "area under PR"]
    if bounded:
        head.insert(4, "AUC, uncertain ones either way")
    rows = []
    for name in findings.ordered(found):
        own = classes[name]
        cells = [f"{plain(name)} (scored)" if name in marked else plain(name)]
        cells += [str(own["auc"]["n"]), str(own["auc"]["n_positive"])]
        cells += [entry(own[m]) for m in ("auc", "sensitivity", "specificity", "pr_auc")]
        if bounded:
            cells.insert(4, _bounds(own.get("auc_bounds")))
        rows.append(cells)
    return table(head, rows)


def scored(found) -> str:
    """Words the mean of the scored findings, by picture and by study."""
    names = findings.scored(found)
    if not names:
        return ""
    auc, studies = found["scored"]["auc"], found["scored"].get("by_study")
    by_study = f"; by study {entry(studies['auc'])}, {studies['auc']['n']} studies" * bool(studies)
    of = f"{auc['n_classes']} of the {len(names)} scored findings"
    return (
        f"Mean AUC of {of} ({', '.join(map(plain, names))}) **{entry(auc)}**{by_study}; the "
        "unweighted mean of Irvin et al. 2019. "
    )


def never(said) -> str:
    """Names the findings that training could not teach, with what it lacked."""
    if not said:
        return ""
    listed = ", ".join(map(plain, said))
    return f"Never trained, so without numbers, and no answer of theirs means anything: {listed}. "


def labels(counted) -> str:
    """Says what training made of labels that are neither yes nor no."""
    if not counted:
        return ""
    total, said = counted["total"], ""
    if counted["blank_as"]:
        said = f" Labels that no report mentions ({total['blank']} in training) count as "
        said += f"{counted['blank_as']}."
    if not total["uncertain"]:
        return f"{said} No training label is uncertain."
    each = [
        f"{plain(row['finding'])} {row['uncertain']} ({row['effect']})"
        for row in counted["rows"]
        if row["uncertain"]
    ]
    made = f"all {counted['effect']}" if counted["effect"] else ", ".join(each)
    return f"{said} Uncertain training labels: {total['uncertain']}, {made}."


def _bounds(bounds):
    if bounds is None:
        return ""
    count = f"{bounds['n_uncertain']} uncertain"
    if bounds["low"] is None:
        return f"undefined ({bounds['undefined']}), {count}"
    return f"{bounds['low']:.3f} to {bounds['high']:.3f}, {count}"
