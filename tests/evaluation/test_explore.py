"""The look at a data set before training: exact counts, and one page that opens offline."""

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest

from medkeras.evaluation import explore
from medkeras.evaluation.exploration import (
    explore_findings,
    explore_people,
    explore_people_plots,
    explore_pictures,
    explore_plots,
)
from medkeras.evaluation.figures import canvas
from medkeras.phantoms import chest, knee_mri
from medkeras.readers import chexpert

FINDINGS = ["No Finding", "Edema", "Fracture"]
NAN = float("nan")


@pytest.fixture
def table():
    """Six pictures of three patients; -1 is uncertain, NaN not mentioned."""
    rows = [
        # patient, study, sex, age, projection, view, split, No Finding, Edema, Fracture
        ("a", "1", "F", 34, "AP", "frontal", "train", NAN, 1, 1),
        ("a", "1", "F", 34, NAN, "lateral", "train", NAN, 1, 1),
        ("a", "2", "F", 40, "PA", "frontal", "train", NAN, 1, -1),
        ("b", "1", "M", 0, "AP", "frontal", "train", 1, 0, 0),
        ("c", "1", NAN, 70, "AP", "frontal", "test", NAN, NAN, NAN),
        ("c", "1", NAN, NAN, NAN, "frontal", "test", 0, 0, 1),
    ]
    names = ["patient", "study", "sex", "age", "projection", "view", "split", *FINDINGS]
    made = pd.DataFrame(rows, columns=names).astype({name: float for name in FINDINGS})
    for name in FINDINGS:
        made[f"uncertain {name}"] = made[name] == -1
        made[name] = made[name].where(made[name] >= 0)
    made["path"] = [f"{n}.png" for n in range(len(made))]
    made.attrs["labels"] = FINDINGS
    return made


@pytest.fixture
def few(monkeypatch):
    """Opens few pictures, and draws few: what a page says of them does not depend on it."""
    measured = explore_pictures.measured
    monkeypatch.setattr(explore_pictures, "LOOKED_UP", 4)
    monkeypatch.setattr(explore_pictures, "measured", partial(measured, most=8))


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "chest"
    return chest.write(root, patients=12, valid_patients=4, size=32, lateral=0.5)


def test_every_label_is_present_uncertain_absent_or_blank(table):
    found = explore_findings.counts(table, FINDINGS)
    assert found.columns.tolist() == ["present", "uncertain", "absent", "blank", "patients"]
    assert found.loc["Edema"].tolist() == [3, 0, 2, 1, 1]
    assert found.loc["Fracture"].tolist() == [3, 1, 1, 1, 2]
    assert found.loc["No Finding"].tolist() == [1, 0, 1, 4, 1]
    known = table.drop(columns=[f"uncertain {name}" for name in FINDINGS])
    assert explore_findings.counts(known, FINDINGS).loc["Fracture"].tolist() == [3, 0, 1, 2, 2]


def test_findings_are_counted_together_as_numpy_counts_them(table):
    present = (table[FINDINGS] == 1).to_numpy(int)
    assert (explore_findings.together(table, FINDINGS).to_numpy() == present.T @ present).all()
    found = explore_findings.combinations(table, FINDINGS, most=2)
    both = {"names": ["Edema", "Fracture"], "n": 2}
    assert found == {"rows": [both, {"names": ["No Finding"], "n": 1}], "all": 5, "rest": 3}
    rows = explore_findings.combinations(table, FINDINGS)["rows"]
    assert [] in [row["names"] for row in rows] and sum(row["n"] for row in rows) == 6


def test_no_finding_is_not_a_finding(table):
    assert explore_findings.numbers(table, FINDINGS).to_dict() == {0: 2, 1: 2, 2: 2}
    found = explore_findings.company(table, FINDINGS)
    assert found.to_dict("index") == {
        "Edema": {"alone": 1, "others": 2},
        "Fracture": {"alone": 1, "others": 2},
    }


def test_an_age_of_0_is_unknown(table):
    assert explore_people.ages(table).tolist()[:3] == [34, 34, 40]
    assert np.isnan(explore_people.ages(table)[3:]).tolist() == [True, False, True]
    assert explore_people.ages(table.assign(age=0)) is None
    found = explore_findings.ages(table, FINDINGS).set_index(["finding", "sex"])
    numbers = ["n", "low", "median", "high"]
    assert found.loc[("Edema", "female"), numbers].tolist() == [3, 34, 34, 37]
    assert found.loc[("No Finding", "male"), "n"] == 0


def test_records_are_counted_by_patient_and_decade(table):
    assert explore_people.records(table).to_dict() == {1: 1, 2: 1, 3: 1}
    found = explore_people.by_decade(table)
    assert found["rows"].to_dict() == {30: 2, 40: 1, 70: 1}
    assert found["mean"].to_dict() == {30: 2.0, 40: 1.0, 70: 1.0}


def test_characteristics_of_each_part(table):
    found = explore_people.characteristics(table)
    assert found["parts"] == ["training", "test", "all"]
    rows = {row["name"]: row["cells"] for row in found["rows"]}
    assert [cell["n"] for cell in rows["studies"]] == [3, 1, 4]
    assert rows["pictures a patient: mean (most)"][0] == {"mean": 2.0, "most": 3}
    assert rows["age unknown"][2] == {"n": 2, "of": 6}
    assert rows["female"][0] == {"n": 3, "of": 4} and rows["sex unknown"][1] == {"n": 2, "of": 2}
    # Of the frontal pictures alone.
    assert rows["AP"][0] == {"n": 2, "of": 3} and rows["projection unknown"][0] == {"n": 0, "of": 3}


def test_titles_mark_what_is_uncertain(table):
    titles = explore_findings.titles(table, FINDINGS)
    assert titles[2] == ["Edema", "Fracture?"] and titles[4] == "unknown"


@pytest.fixture(scope="module")
def page(chests, tmp_path_factory):
    """The page of all views of the phantoms, and how each of its figures was marked."""
    folder, marked, drawn = tmp_path_factory.mktemp("page"), [], canvas.png

    def remembered(figure, synthetic):
        marked.append(synthetic)
        return drawn(figure, synthetic)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDKERAS_CACHE", str(folder / "cache"))
        patch.setattr(explore_pictures, "LOOKED_UP", 4)
        patch.setattr(canvas, "png", remembered)
        out = folder / "page.html"
        assert explore.main([str(chests), "--views", "all", "--out", str(out)]) == 0
    return out.read_text(), marked


def test_page_is_whole_and_names_nobody(page):
    for section in ("people", "labels", "together", "ages", "size", "grid"):
        assert f'id="{section}"' in page[0] and f'href="#{section}"' in page[0]
    assert not re.search(r'(?:src|href)="(?!data:|#)|url\(|@import|<script', page[0])
    assert not re.search(r"patient\d|\.jpg", page[0])


def test_phantoms_are_called_synthetic_on_every_figure(page):
    assert "Synthetic sample data" in page[0]
    assert len(page[1]) == page[0].count("data:image/png") == 11 and all(page[1])


def test_counts_of_the_page_are_those_of_the_table(page, chests):
    table = chexpert.read(chests, views="all")
    train = table[table["split"] == "train"]
    edema, unsure = (train["Edema"] == 1).sum(), train["uncertain Edema"].sum()
    row = re.search(r"<td>Edema</td>(.*?)</tr>", page[0])[1]
    assert re.findall(r"<td>(\d+) <small>", row)[:2] == [str(edema), str(unsure)]
    assert f"{100 * edema / len(train):.1f} %" in row
    lateral = (table["view"] == "lateral").sum()
    row = re.search(r"<td>lateral</td>(.*?)</tr>", page[0], re.DOTALL)[1]
    assert re.findall(r"(\d+) <small>", row)[2] == str(lateral)


def test_what_a_layout_lacks_is_left_out(chests, few):
    lacks = ["age", "sex", "projection", "study", "split"]
    lacks += [f"uncertain {name}" for name in chexpert.LABELS]
    table = chexpert.read(chests).drop(columns=lacks)
    named = ", ".join([*table["path"][:2], "..."])
    table.attrs["notes"] = [{"path": named, "reason": "look odd"}]
    page, _ = explore.explore(table, "chest")
    page = re.sub(r'"data:[^"]*"', "", page)
    assert "look odd" in page and "train/" not in page
    for text in ("Age", "female", "<td>AP", "studies", "raining", "ncertain", "not mentioned"):
        assert text not in page, text
    assert 'id="together"' in page and "patients with one picture" in page


def test_an_age_without_a_sex_is_drawn(table):
    found = explore_findings.ages(table.drop(columns="sex"), FINDINGS)
    assert found["sex"].unique().tolist() == ["all"]
    assert explore_plots.ages_of(found).startswith(b"\x89PNG")
    assert explore_people_plots.ages(table["age"]).startswith(b"\x89PNG")


def test_a_large_set_is_measured_in_part(chests):
    table = chexpert.read(chests)
    rows, broken, study = explore_pictures.measured(table, most=5)
    assert study["opened"] == len(rows) == 5 and not broken
    assert rows.index[0] == 0 and rows.index[-1] == len(table) - 1


def test_exams_have_figures_of_labels_and_slices(tmp_path, few, capsys):
    root = knee_mri.write(tmp_path / "knee", exams=10, valid=3, size=32, slices=(2, 3))
    assert explore.main([str(root), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "10 exams standing alone" in page and "middle slice of the axial plane" in page
    assert 'id="size"' not in page and "recommended" not in capsys.readouterr().out


def test_views_are_of_chest_xrays_only(phantom_folder, tmp_path, capsys):
    argv = [str(phantom_folder()), "--views", "all", "--out", str(tmp_path / "page.html")]
    assert explore.main(argv) == 2
    assert "--views is for chest X-rays" in capsys.readouterr().err


def test_real_chest_pictures(shared, tmp_path, few):
    out = tmp_path / "page.html"
    assert explore.main([str(shared / "data/CheXpert-v1.0-small"), "--out", str(out)]) == 0
    page = out.read_text()
    assert "410 pictures of 410 patients" in page and "Each patient has one picture" in page
    assert "Measured on 8 of the 410 pictures" in page
    assert "ynthetic" not in page and not re.search(r"patient\d", page)


def test_the_page_names_no_file_of_a_patient(tmp_path):
    root = chest.write(tmp_path / "chest", patients=12, valid_patients=4, size=32)
    broken = root / "train/patient00001/study1/view1_frontal.jpg"
    broken.write_bytes(b"no picture")
    page, _ = explore.explore(chexpert.read(root), "chest")
    assert "1 file that could not be read" in page and "patient0" not in page
