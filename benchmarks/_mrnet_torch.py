"""Trains the knee MRI network in PyTorch as published; the other side of `mrnet_training.py`.

A program of its own, so that its peak of memory holds no TensorFlow. One exam a batch, default
layout (NCHW), float32. Each plane is loaded anew in every epoch: spread over 0..255 and
standardised in float64, its grey slices stacked to three channels.

    python benchmarks/_mrnet_torch.py FOLDER    # as `knees` in _measure.py writes it
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from _memory import peak
from torch import nn

PLANES = ("axial", "coronal", "sagittal")


class Exams(torch.utils.data.Dataset):
    """Loads the volumes of the training exams, and whether they are abnormal."""

    def __init__(self, table):
        self.rows = [row for row, part in enumerate(table["split"]) if part == "train"]
        self.table = table

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        row = self.rows[number]
        planes = [loaded(self.table[plane][row]) for plane in PLANES]
        return planes, torch.tensor([self.table["abnormal"][row]])


class Network(nn.Module):
    """AlexNet's convolutions for all planes, mean of a slice, largest of an exam, one logit."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(len(PLANES) * 256, 1)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                # As ours. PyTorch's own leave logits too small to compare.
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")

    def forward(self, planes):
        # A loader's batch of one exam has one axis too many.
        maps = [self.average(self.features(plane.squeeze(0))).flatten(1) for plane in planes]
        exam = torch.cat([torch.max(slices, 0, keepdim=True).values for slices in maps], 1)
        return self.classifier(exam)


def loaded(file):
    volume = np.load(file, allow_pickle=False)
    low, high = np.min(volume), np.max(volume)
    volume = (volume - low) / (high - low) * 255
    volume = (volume - 58.09) / 49.73
    return torch.from_numpy(np.stack((volume,) * 3, axis=1).astype(np.float32))


def epoch(network, optimizer, batches):
    """Trains on all batches once; returns CPU seconds."""
    began = time.process_time()
    loss = nn.BCEWithLogitsLoss()
    for planes, label in batches:
        optimizer.zero_grad()
        value = loss(network(planes), label)
        value.backward()
        optimizer.step()
        assert np.isfinite(value.item())
    return time.process_time() - began


def main(folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    exams = Exams(json.loads((folder / "exams.json").read_text()))
    network = Network()
    with torch.no_grad():
        logit = network(exams[0][0]).numpy()
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    np.savez(folder / "published.npz", logit=logit, **weights)

    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, weight_decay=0.01)
    loader = torch.utils.data.DataLoader(exams, batch_size=1, shuffle=True)
    epoch(network, optimizer, loader)
    seconds = epoch(network, optimizer, loader)
    megabytes = peak()
    step = epoch(network, optimizer, list(loader))
    print(json.dumps({"epoch": seconds, "step": step, "megabytes": megabytes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
