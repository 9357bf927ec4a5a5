"""The job of a folder in pfl-research's simulator, which is one process and one thread."""

import random
import sys
import time
from importlib.metadata import version

import processes
import torch
import torch.nn.functional as F
import training_job as task
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel

FOLDER = sys.argv[1]
job = task.job(FOLDER)
task.examples(FOLDER, "train")


class Model(torch.nn.Module):
    """What pfl asks of a model."""

    def __init__(self):
        super().__init__()
        self.net = task.network(FOLDER)

    def forward(self, x):
        return self.net(x)

    def loss(self, x, y, eval=False):
        return F.cross_entropy(self(x), y)

    def metrics(self, x, y, eval=False):
        return {}


def dataset(number):
    # pfl takes batches in the order of the rows.
    x, y = task.client(FOLDER, number)
    order = torch.randperm(len(x))
    return Dataset([x[order], y[order]], user_id=number)


draw = random.Random(0)
queue = []


def next_client():
    if not queue:
        queue.extend(draw.sample(range(len(job.clients)), job.cohort))
    return queue.pop()


turns = task.Turns(f"pfl {version('pfl')}, PyTorch {torch.__version__}", job.rounds)


class Callback(TrainingProcessCallback):
    def on_train_begin(self, *, model):
        turns.turn()
        return Metrics()

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        turns.turn()
        return False, Metrics()


module = Model()
FederatedAveraging().run(
    algorithm_params=NNAlgorithmParams(
        central_num_iterations=job.rounds,
        # Never: only that before the first round, of which there is nothing to tell.
        evaluation_frequency=10**9,
        train_cohort_size=job.cohort,
        val_cohort_size=None,
    ),
    backend=SimulatedBackend(
        training_data=FederatedDataset(dataset, next_client),
        val_data=None,
        postprocessors=[WeightByDatapoints()],
    ),
    model=PyTorchModel(
        model=module,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(module.parameters(), 1.0),
    ),
    model_train_params=NNTrainHyperParams(
        local_num_epochs=1, local_learning_rate=job.rate, local_batch_size=job.batch
    ),
    model_eval_params=NNEvalHyperParams(local_batch_size=1000),
    callbacks=[Callback()],
)
accuracy = task.accuracy(module, FOLDER)
task.say(accuracy=accuracy, peak_mib=processes.peak(), cpu_s=time.process_time())
