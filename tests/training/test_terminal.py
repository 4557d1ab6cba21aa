import math

from medkeras.training import terminal

ROW = {"stage": 1, "epoch": 3, "learning_rate": 1e-4, "loss": 0.5, "val_loss": 0.25}


def with_findings(*names, auc=0.75):
    row = dict(ROW)
    for name in names:
        for side in ("", "val_"):
            values = {"auc": auc, "sensitivity": 0.5, "specificity": 1.0}
            row |= {f"{side}{kind}_{name}": value for kind, value in values.items()}
    return row


def test_an_epoch_is_one_line_of_all_its_numbers():
    line = terminal.epoch_line({**ROW, "accuracy": 0.9, "val_accuracy": 0.8}, 9, best=True)
    assert "\n" not in line and line.startswith("stage 1 epoch 3/9  loss 0.5000  val_loss 0.2500")
    assert "accuracy 0.9000  val_accuracy 0.8000" in line and line.endswith("1e-04  best")


def test_a_few_findings_have_a_line_each():
    first, acl, meniscus = terminal.epoch_line(
        with_findings("acl", "meniscus"), 9, best=False
    ).splitlines()
    assert "auc" not in first
    assert acl == "  validation, acl       auc 0.750  sensitivity 0.500  specificity 1.000"
    assert meniscus.startswith("  validation, meniscus  auc 0.750")


def test_many_findings_are_said_by_their_mean_and_undefined_ones_left_out():
    row = with_findings(*"abcdefgh") | {"val_auc_h": math.nan}
    line = terminal.epoch_line(row, 9, best=False)
    assert "\n" not in line and "mean val_auc of 7 findings 0.750" in line
    undefined = terminal.epoch_line(with_findings("acl", auc=math.nan), 9, best=False)
    assert "auc undefined" in undefined
