"""Federated averaging in plain PyTorch on one thread, a round for each line on standard input.

A line is a list of clients (answered with CPU seconds), a number of repetitions of a step's matrix products (likewise),
"accuracy" or "versions". The folder holds what peer.rs wrote.
"""

import json
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

folder = sys.argv[1]
torch.set_num_threads(1)
torch.manual_seed(0)


def read(name, kind):
    return torch.from_numpy(np.fromfile(os.path.join(folder, name), dtype=kind))


def examples(name):
    return read(f"{name}-features", "<f4").view(-1, 784), read(f"{name}-labels", "<u4").long()


net = nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))
# Bias before weight, weights with a row for each input.
b1, w1, b2, w2 = read("model", "<f4").split([200, 784 * 200, 10, 200 * 10])
model = [w1.view(784, 200).T.contiguous(), b1, w2.view(200, 10).T.contiguous(), b2]
features, labels = examples("train")
with open(os.path.join(folder, "clients")) as file:
    clients = [torch.tensor(rows) for rows in json.load(file)]


def train(x, y):
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05)
    order = torch.randperm(len(x))
    for start in range(0, len(x), 32):
        rows = order[start : start + 32]
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimiser.step()


def load():
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), model):
            parameter.copy_(value)


def products(repetitions):
    """Median CPU seconds of the five matrix products of a step, without gradients."""
    x, hidden, scores = torch.rand(32, 784), torch.rand(32, 200), torch.rand(32, 10)
    first, second = torch.rand(784, 200), torch.rand(200, 10)
    times = []
    with torch.no_grad():
        for _ in range(repetitions):
            start = time.thread_time()
            x @ first
            hidden @ second
            hidden.T @ scores
            scores @ second.T
            x.T @ hidden
            times.append(time.thread_time() - start)
    return sorted(times)[repetitions // 2]


for line in sys.stdin:
    request = json.loads(line)
    if request == "versions":
        answer = f"PyTorch {torch.__version__}, {torch.get_num_threads()} thread"
    elif isinstance(request, dict):
        answer = products(request["products"])
    elif request == "accuracy":
        answer = None
        if os.path.exists(os.path.join(folder, "test-labels")):
            x, y = examples("test")
            load()
            with torch.no_grad():
                answer = (net(x).argmax(1) == y).double().mean().item()
    else:
        data = [(features[clients[client]], labels[clients[client]]) for client in request]
        start = time.process_time()
        total = [torch.zeros_like(value) for value in model]
        for x, y in data:
            load()
            train(x, y)
            with torch.no_grad():
                total = [sum_ + parameter / len(request) for sum_, parameter in zip(total, net.parameters())]
        model = total
        answer = time.process_time() - start
    print(json.dumps(answer), flush=True)
