"""The job of a folder in a plain PyTorch loop, one client after the other on one thread."""

import random
import sys
import time

import processes
import torch
import training_job as task

FOLDER = sys.argv[1]
job = task.job(FOLDER)
task.examples(FOLDER, "train")
net = task.network(FOLDER)
model = [parameter.detach().clone() for parameter in net.parameters()]


def load():
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), model):
            parameter.copy_(value)


draw = random.Random(0)
turns = task.Turns(f"PyTorch {torch.__version__}", job.rounds)
turns.turn()
for _ in range(job.rounds):
    total = [torch.zeros_like(value) for value in model]
    for number in draw.sample(range(len(job.clients)), job.cohort):
        load()
        task.train(net, FOLDER, *task.client(FOLDER, number))
        for value, parameter in zip(total, net.parameters()):
            value += parameter.detach() / job.cohort
    model = total
    turns.turn()
load()
accuracy = task.accuracy(net, FOLDER)
task.say(accuracy=accuracy, peak_mib=processes.peak(), cpu_s=time.process_time())
