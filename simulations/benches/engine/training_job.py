"""What the peers of the measurement `training` share: the job, how a client trains in PyTorch, and how rounds are asked for.

The folder that a peer is given holds what training.rs wrote: `job.json`, the initial model, the examples.
"""

import functools
import json
import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)


@functools.cache
def job(folder):
    with open(os.path.join(folder, "job.json")) as file:
        return SimpleNamespace(**json.load(file))


def read(folder, name, kind):
    return torch.from_numpy(np.fromfile(os.path.join(folder, name), dtype=kind))


@functools.cache
def examples(folder, part):
    features = read(folder, f"{part}-features", "<f4").view(-1, job(folder).layers[0])
    return features, read(folder, f"{part}-labels", "<u4").long()


def client(folder, number):
    features, labels = examples(folder, "train")
    rows = torch.tensor(job(folder).clients[number])
    return features[rows], labels[rows]


def network(folder):
    """The initial model."""
    layers = job(folder).layers
    pairs = list(zip(layers, layers[1:]))
    # In the file: of each layer the bias, then the weights with a row for each input.
    sizes = [size for inputs, outputs in pairs for size in (outputs, inputs * outputs)]
    values = iter(read(folder, "model", "<f4").split(sizes))
    modules = []
    for inputs, outputs in pairs:
        linear = nn.Linear(inputs, outputs)
        with torch.no_grad():
            linear.bias.copy_(next(values))
            linear.weight.copy_(next(values).view(inputs, outputs).T)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def train(net, folder, x, y):
    """One pass of plain SGD over shuffled batches."""
    settings = job(folder)
    optimiser = torch.optim.SGD(net.parameters(), lr=settings.rate)
    for rows in torch.randperm(len(x)).split(settings.batch):
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimiser.step()


@torch.no_grad()
def accuracy(net, folder):
    features, labels = examples(folder, "test")
    right = [
        (net(x).argmax(1) == y).sum() for x, y in zip(features.split(1000), labels.split(1000))
    ]
    return sum(right).item() / len(labels)


def say(**answer):
    print(json.dumps(answer), flush=True)


class Turns:
    """Lets a loop go on when it is asked to: `turn` is called before the first round and after each, and calls `between`
    where its time counts as nobody's."""

    def __init__(self, name, rounds, cpu=time.process_time, between=lambda: None):
        self.name, self.missing, self.cpu, self.between = name, rounds, cpu, between
        self.asked = 0

    def turn(self):
        if self.name:
            say(ready=self.name)
            self.name = None
        else:
            self.asked, self.missing = self.asked - 1, self.missing - 1
            if self.asked == 0:
                wall, cpu = time.perf_counter(), self.cpu()
                say(wall_ms=1e3 * (wall - self.start[0]), cpu_ms=1e3 * (cpu - self.start[1]))
        if self.asked == 0:
            self.between()
        if self.asked == 0 and self.missing > 0:
            line = sys.stdin.readline()
            if not line:
                # Whoever asked is gone.
                os._exit(1)
            self.asked = json.loads(line)["rounds"]
            self.start = time.perf_counter(), self.cpu()
