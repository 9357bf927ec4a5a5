"""The job of a folder in Flower's simulator: clients train with PyTorch, two at a time, one thread each.

CPU time is that of this process and all that descends from it; memory is the most that these had at the end of a round.
The first round, in which workers start and read the examples, is much longer than the others.
"""

import os
import sys
from importlib.metadata import version

os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")
# Or whatever else the machine does would come before Ray's workers.
os.environ["RAY_worker_niceness"] = "0"

import processes
import training_job as task
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

FOLDER = sys.argv[1]
peak, final = 0.0, None
client, server = ClientApp(), ServerApp()


@client.train()
def train(message, context):
    import training_job as task

    x, y = task.client(FOLDER, context.node_config["partition-id"])
    net = task.network(FOLDER)
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    task.train(net, FOLDER, x, y)
    content = RecordDict(
        {
            "arrays": ArrayRecord(net.state_dict()),
            "metrics": MetricRecord({"num-examples": len(x)}),
        }
    )
    return Message(content=content, reply_to=message)


@server.main()
def main(grid, _context):
    job = task.job(FOLDER)
    name = f"Flower {version('flwr')}, Ray {version('ray')}"

    def cpu():
        return sum(processes.cpu_seconds().values())

    def note_memory():
        global peak
        peak = max(peak, processes.memory(processes.cpu_seconds()))

    turns = task.Turns(name, job.rounds, cpu, note_memory)

    def end_of_round(_round, arrays):
        global final
        final = arrays
        turns.turn()

    strategy = FedAvg(
        fraction_train=job.cohort / len(job.clients),
        fraction_evaluate=0.0,
        min_train_nodes=job.cohort,
        min_available_nodes=len(job.clients),
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(task.network(FOLDER).state_dict()),
        num_rounds=job.rounds,
        evaluate_fn=end_of_round,
    )


if __name__ == "__main__":
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=len(task.job(FOLDER).clients),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": min(os.cpu_count(), 2)},
        },
    )
    net = task.network(FOLDER)
    net.load_state_dict(final.to_torch_state_dict())
    task.say(accuracy=task.accuracy(net, FOLDER), peak_mib=peak)
