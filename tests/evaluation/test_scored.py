"""Many findings: the scored mean by picture and by study, what was never trained, bounds."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medkeras.evaluation.evaluate import evaluate
from medkeras.evaluation.numbers import bounds, metrics, scored_mean
from tests.evaluation.many_findings import FINDINGS, SCORED, in_memory, predicted


def measured(table, **options):
    return metrics.measured(table, "multilabel", resamples=100, **options)


def test_the_scored_mean_is_that_of_the_scored_findings_alone():
    table = predicted()
    found = measured(table, scored=SCORED)
    for split, part in (("test", found), ("val", found["validation"])):
        own = table[table["split"] == split]
        assert part["scored"]["findings"] == list(SCORED)
        for metric, area in (("auc", roc_auc_score), ("pr_auc", average_precision_score)):
            entry, values = part["scored"][metric], []
            for name in SCORED:
                known = own[f"label_{name}"].notna()
                pair = own[f"label_{name}"][known], own[f"probability_{name}"][known]
                values.append(area(*pair))
            assert entry["value"] == pytest.approx(np.mean(values))
            assert entry["n_classes"] == 2 and entry["n"] == len(own)
    entry = found["scored"]["auc"]
    assert entry["low"] < entry["value"] < entry["high"]
    # As narrow as a mean is, narrower than either of its two findings.
    width = entry["high"] - entry["low"]
    each = [found["classes"][name]["auc"] for name in SCORED]
    assert width < max(one["high"] - one["low"] for one in each)
    assert "scored" not in measured(table)


def test_a_scored_finding_without_an_auc_is_left_out_of_the_mean():
    table = predicted()
    table["label_Edema"] = table["label_Edema"].where(table["label_Edema"] != 1)
    found = measured(table, scored=SCORED)
    assert found["scored"]["auc"]["n_classes"] == 1
    assert found["scored"]["auc"]["value"] == found["classes"]["Atelectasis"]["auc"]["value"]
    nothing = measured(table, scored=["Edema"])["scored"]["auc"]
    assert nothing["value"] is None and nothing["n_classes"] == 0 and nothing["undefined"]


def test_by_study_the_highest_picture_speaks_and_studies_belong_to_patients():
    table = predicted()
    own = table[table["split"] == "test"]
    groups, values = {}, []
    for row in own.to_dict("records"):
        groups.setdefault((row["patient"], row["study"]), []).append(row)
    for name in SCORED:
        pairs = [
            (rows[0][f"label_{name}"], max(row[f"probability_{name}"] for row in rows))
            for rows in groups.values()
        ]
        values.append(roc_auc_score(*zip(*[pair for pair in pairs if not np.isnan(pair[0])])))
    entry = measured(table, scored=SCORED)["scored"]["by_study"]["auc"]
    assert entry["value"] == pytest.approx(np.mean(values))
    assert entry["n"] == len(groups) == 40 > own["study"].nunique() and entry["n_classes"] == 2
    assert entry["low"] < entry["value"] < entry["high"]
    assert "by_study" not in measured(table.drop(columns="study"), scored=SCORED)["scored"]
    few = scored_mean.studies(table.assign(label_Edema=[np.nan, 1.0] * (len(table) // 2)), SCORED)
    assert (few["label_Edema"] == 1).all(), "known in one picture is known in the study"


def test_what_was_never_trained_has_no_number_and_is_in_no_mean():
    table = predicted()
    whole = measured(table, scored=FINDINGS)
    found = measured(table, scored=FINDINGS, untrained=["Fracture"])
    own = found["classes"]["Fracture"]
    for metric in metrics.PER_CLASS:
        assert whole["classes"]["Fracture"][metric]["value"] is not None
        assert own[metric]["value"] is None and own[metric]["low"] is None
        assert own[metric]["undefined"].startswith("never trained: no positive")
        assert found["mean"][metric]["n_classes"] == 3
    assert own["auc"]["n"] == whole["classes"]["Fracture"]["auc"]["n"]
    assert own["auc_bounds"]["low"] is None and own["auc_bounds"]["n_uncertain"] > 0
    for entry in (found["scored"]["auc"], found["scored"]["by_study"]["auc"]):
        assert entry["n_classes"] == 3
    others = [found["classes"][name]["auc"]["value"] for name in FINDINGS if name != "Fracture"]
    assert found["mean"]["auc"]["value"] == pytest.approx(np.mean(others))
    assert found["untrained"] == found["validation"]["untrained"] == ["Fracture"]
    for metric in ("brier", "ece"):
        kept = table.assign(label_Fracture=np.nan)
        assert found[metric]["value"] == measured(kept)[metric]["value"] != whole[metric]["value"]
    everything = measured(table, scored=SCORED, untrained=FINDINGS)
    assert everything["mean"]["auc"]["value"] is everything["brier"]["value"] is None
    json.dumps(everything, allow_nan=False)


def test_bounds_stand_where_labels_are_uncertain_and_only_there():
    table = predicted()
    found = measured(table)
    for split, part in (("test", found), ("val", found["validation"])):
        own = table[table["split"] == split]
        for name in FINDINGS[:3]:
            marks = own[f"uncertain_{name}"].astype(bool)
            entry = part["classes"][name]["auc_bounds"]
            expected = bounds.auc(own[f"label_{name}"], own[f"probability_{name}"], marks)
            assert (entry["low"], entry["high"]) == expected and expected[0] < expected[1]
            assert entry["n_uncertain"] == marks.sum() > 0
        assert "auc_bounds" not in part["classes"]["Pneumonia"]
    one = table.assign(uncertain_Edema=table["split"] == "val")
    assert "auc_bounds" not in measured(one)["classes"]["Edema"]
    only = table.assign(label_Edema=np.nan, uncertain_Edema=table.index == table.index[-1])
    entry = measured(only)["classes"]["Edema"]["auc_bounds"]
    assert entry["low"] is None and entry["n_uncertain"] == 1 and entry["undefined"]


def test_names_without_predictions_are_refused():
    for option in ("scored", "untrained"):
        with pytest.raises(ValueError, match="no predictions of .*Rib"):
            measured(predicted(), **{option: ["Edema", "Rib"]})


@pytest.mark.parametrize("word", ["ones", "multiclass"])
def test_the_files_hold_what_every_number_needs(small_model, small_run, word):
    data, run = in_memory(word), small_run()
    scores = evaluate(small_model(data.outputs), data, run, scored=SCORED)
    written = metrics.read(run.folder / "predictions.csv")
    triples = [f"{kind}_{name}" for name in FINDINGS for kind in ("label", "logit", "probability")]
    # No label of pneumonia is uncertain.
    marks = ["study", *(f"uncertain_{name}" for name in FINDINGS[:3])]
    assert list(written.columns) == ["path", "patient", "split", *triples, *marks]
    rows = pd.concat([data.val.table, data.test.table])
    for name in FINDINGS[:3]:
        assert (written[f"uncertain_{name}"].to_numpy() == rows[f"uncertain {name}"]).all()
        assert written[f"label_{name}"][written[f"uncertain_{name}"] == 1].isna().all()
    assert list(written["study"]) == list(rows["study"])

    stored = json.loads((run.folder / "metrics.json").read_text())
    given = {"scored": stored["scored"]["findings"], "untrained": stored["untrained"]}
    again = metrics.measured(written, "multilabel", seed=run.seed, **given)
    assert again == stored == scores.metrics and stored["untrained"] == ["Fracture"]
    predictor = json.loads((run.folder / "predictor.json").read_text())
    assert predictor["untrained"] == ["Fracture"] and predictor["labels"] == list(FINDINGS)
    assert ("logits" in predictor) == (word == "multiclass")


def test_of_two_logits_a_finding_the_first_half_is_read(small_model, small_run):
    import keras

    data = in_memory("multiclass")
    model = small_model(2 * len(FINDINGS))
    scores = evaluate(model, data, small_run())
    kernel, bias = model.get_layer("logits").get_weights()
    half = small_model(len(FINDINGS))
    for ours, theirs in zip(half.layers[:-1], model.layers[:-1], strict=True):
        ours.set_weights(theirs.get_weights())
    half.get_layer("logits").set_weights([kernel[:, :4], bias[:4]])
    logits = half.predict(keras.ops.cast(data.test.inputs(np.arange(80))[0], "float32"), verbose=0)
    test = scores.predictions[scores.predictions["split"] == "test"]
    ours = test[[f"logit_{name}" for name in FINDINGS]]
    np.testing.assert_allclose(ours, logits, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="4 logits, but 8"):
        evaluate(half, data, small_run(folder="other"))
