"""The built-in models in PyTorch, the oracle of learning/tests/pytorch.rs.

    python reference.py vectors > models.json           losses and gradients in float64 (written with PyTorch 2.15)
    python reference.py evaluate FILE... < inputs.json  log-probabilities of safetensors files on given inputs
    python reference.py write FILE < parameters.json    a safetensors file of given parameters
"""

import json
import math
import sys

import torch
import torch.nn.functional as F
from torch import nn


class Mlp(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        self.names = [f"hidden{i + 1}" if i else "hidden" for i in range(len(sizes) - 2)] + ["output"]
        for name, inputs, outputs in zip(self.names, sizes, sizes[1:]):
            self.add_module(name, nn.Linear(inputs, outputs))

    def forward(self, x):
        for name in self.names[:-1]:
            x = F.relu(self.get_submodule(name)(x))
        return self.output(x)


class Cnn(nn.Module):
    def __init__(self, height, width, channels, one, two, hidden, classes):
        super().__init__()
        self.image = (channels, height, width)
        self.conv1 = nn.Conv2d(channels, one, 5, padding=2)
        self.conv2 = nn.Conv2d(one, two, 5, padding=2)
        self.hidden = nn.Linear(two * (height // 4) * (width // 4), hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, x):
        x = x.view(-1, *self.image)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.output(F.relu(self.hidden(x.flatten(1))))


def norm(channels):
    return nn.GroupNorm(channels // 4, channels)


class CnnNorm(nn.Module):
    def __init__(self, height, width, channels, one, two, classes):
        super().__init__()
        self.image = (channels, height, width)
        self.conv1 = nn.Conv2d(channels, one, 3, padding=1, bias=False)
        self.norm1 = norm(one)
        self.conv2 = nn.Conv2d(one, two, 3, padding=1, bias=False)
        self.norm2 = norm(two)
        self.output = nn.Linear(two * (height // 4) * (width // 4), classes)

    def forward(self, x):
        x = x.view(-1, *self.image)
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        return self.output(x.flatten(1))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = norm(outputs)
        if inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.ModuleDict({"conv": conv, "norm": norm(outputs)})

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + (self.shortcut["norm"](self.shortcut["conv"](x)) if hasattr(self, "shortcut") else x))


class ResNet(nn.Module):
    def __init__(self, height, width, channels, filters, blocks, classes):
        super().__init__()
        self.image = (channels, height, width)
        self.conv = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        self.norm = norm(filters)

        def stage(inputs, outputs, stride):
            rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
            return nn.ModuleList([Block(inputs, outputs, stride), *rest])

        self.stage1 = stage(filters, filters, 1)
        self.stage2 = stage(filters, 2 * filters, 2)
        self.stage3 = stage(2 * filters, 4 * filters, 2)
        self.output = nn.Linear(4 * filters, classes)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x.view(-1, *self.image))))
        for block in [*self.stage1, *self.stage2, *self.stage3]:
            x = block(x)
        return self.output(x.mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, kind, vocabulary, embedding, *hidden):
        super().__init__()
        assert len(set(hidden)) == 1, "PyTorch's layers are of one size"
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.rnn = kind(embedding, hidden[0], len(hidden), batch_first=True)
        self.output = nn.Linear(hidden[0], vocabulary)

    def forward(self, x):
        return self.output(self.rnn(self.embedding(x))[0]).flatten(0, 1)


class Adapters(nn.Module):
    """Adapters of a rank on a base whose parameters are a wave."""

    def __init__(self, rank, base):
        super().__init__()
        self.base = [build(base)]
        load(self.base[0], wave(size(self.base[0])))
        self.matrices = [name for name, w in self.base[0].named_parameters() if w.dim() == 2]
        for name in self.matrices:
            outputs, inputs = self.base[0].get_parameter(name).shape
            self.register_parameter(name.replace(".", "_") + "_a", nn.Parameter(torch.zeros(rank, inputs)))
            self.register_parameter(name.replace(".", "_") + "_b", nn.Parameter(torch.zeros(outputs, rank)))

    def forward(self, x):
        weights = {name: w.detach() for name, w in self.base[0].named_parameters()}
        for name in self.matrices:
            a, b = (self.get_parameter(name.replace(".", "_") + part) for part in ("_a", "_b"))
            weights[name] = weights[name] + b @ a
        return torch.func.functional_call(self.base[0], weights, (x,))


KINDS = {
    "softmax": Mlp,
    "mlp": Mlp,
    "cnn": Cnn,
    "cnn-norm": CnnNorm,
    "resnet": ResNet,
    "gru": lambda *sizes: Recurrent(nn.GRU, *sizes),
    "lstm": lambda *sizes: Recurrent(nn.LSTM, *sizes),
}


def build(name):
    kind, sizes = name.split(":", 1)
    if kind == "lora":
        rank, _, base = sizes.split(":", 2)
        return Adapters(int(rank), base).double()
    return KINDS[kind](*map(int, sizes.split("x"))).double()


def wave(length):
    return [0.3 * math.sin(0.7 * i) for i in range(length)]


def size(net):
    return sum(w.numel() for w in net.parameters())


def layout(net):
    """Parameters in the order of the flat vector, and whether they are transposed there."""
    named = sorted(net.named_parameters())
    return [(name, w, w.dim() == 2 and name != "embedding.weight") for name, w in named]


def load(net, flat):
    flat = torch.tensor(flat, dtype=torch.float64)
    at = 0
    for _, w, turned in layout(net):
        values = flat[at : at + w.numel()]
        w.data.copy_(values.view(w.T.shape).T if turned else values.view(w.shape))
        at += w.numel()


def data(name, net):
    """Three rows of inputs, and their labels."""
    rows, length = 3, 4
    base = name.split(":", 3)[-1] if name.startswith("lora:") else name
    kind, sizes = base.split(":")
    sizes = [int(size) for size in sizes.split("x")]
    if kind in ("gru", "lstm"):
        tokens = [(5 * i + i * i // 2) % sizes[0] for i in range(rows * length)]
        labels = [(3 * i + 1) % sizes[0] for i in range(rows * length)]
        return torch.tensor(tokens).view(rows, length), torch.tensor(labels)
    inputs = sizes[0] if kind in ("softmax", "mlp") else math.prod(sizes[:3])
    features = [math.sin(1.3 * i) for i in range(rows * inputs)]
    labels = [(2 * row + 1) % sizes[-1] for row in range(rows)]
    return torch.tensor(features, dtype=torch.float64).view(rows, inputs), torch.tensor(labels)


def vectors():
    names = [
        "softmax:5x3",
        "mlp:5x4x3",
        "mlp:5x4x6x3",
        "cnn:8x9x2x2x3x5x4",
        "cnn-norm:8x8x2x4x8x3",
        "resnet:8x7x2x4x2x3",
        "gru:7x3x4",
        "gru:7x3x4x4",
        "lstm:7x3x4x4",
        "lora:2:0:mlp:5x4x3",
    ]
    cases = []
    for name in names:
        net = build(name)
        load(net, wave(size(net)))
        x, y = data(name, net)
        scores = net(x)
        loss = F.cross_entropy(scores, y)
        loss.backward()
        gradient = [(w.grad.T if turned else w.grad).flatten().tolist() for _, w, turned in layout(net)]
        every = 1 if size(net) < 1000 else 7
        short = lambda values: [float(f"{value:.6g}") for value in values]
        cases.append({
            "model": name,
            "labels": y.tolist(),
            "inputs": x.tolist() if x.dtype == torch.int64 else None,
            "loss": loss.item(),
            "log_probabilities": short(F.log_softmax(scores, 1).flatten().tolist()),
            "every": every,
            "gradient": short(sum(gradient, [])[::every]),
        })
    print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")


def evaluate(files):
    from safetensors import safe_open
    from safetensors.torch import load_file

    inputs = json.load(sys.stdin)
    answers = []
    for file, x in zip(files, inputs):
        with safe_open(file, "pt") as opened:
            net = build(opened.metadata()["fedveil.model"]).float()
        weights = load_file(file)
        turned = {k: w.T if w.dim() == 2 and k != "embedding.weight" else w for k, w in weights.items()}
        net.load_state_dict(turned)
        answers.append(F.log_softmax(net(torch.tensor(x)), 1).flatten().tolist())
    print(json.dumps(answers))


def write(file):
    from safetensors.torch import save_file

    name, flat = json.load(sys.stdin)
    net = build(name)
    load(net, flat)
    turned = {k: (w.data.T if turned else w.data).float().contiguous() for k, w, turned in layout(net)}
    save_file(turned, file, metadata={"fedveil.model": name})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["vectors"]:
            vectors()
        case ["evaluate", *files]:
            evaluate(files)
        case ["write", file]:
            write(file)
        case _:
            sys.exit(__doc__)
