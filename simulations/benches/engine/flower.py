"""A no-op job in Flower's simulator: every client sends back what it was sent.

Arguments: parameters, clients (all of them in every round), rounds. Prints one line of JSON: wall and CPU time of each
round in ms, CPU over this process and all that descends from it, and the most memory that these had at the end of a round
(proportional set size). The first round, in which workers start, is not among them.
"""

import json
import os
import sys
import time
from importlib.metadata import version

os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")

import numpy as np
import processes
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

PARAMETERS, CLIENTS, ROUNDS = map(int, sys.argv[1:4])

rounds, peak = [], 0.0


def end_of_round(_round, _arrays):
    global peak
    found = processes.cpu_seconds()
    peak = max(peak, processes.memory(found))
    rounds.append((time.perf_counter(), sum(found.values())))


client, server = ClientApp(), ServerApp()


@client.train()
def train(message, _context):
    content = RecordDict(
        {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
    )
    return Message(content=content, reply_to=message)


@server.main()
def main(grid, _context):
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=CLIENTS,
        min_available_nodes=CLIENTS,
    )
    arrays = ArrayRecord([np.zeros(PARAMETERS, np.float32)])
    strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=ROUNDS + 1,
        evaluate_fn=end_of_round,
    )


if __name__ == "__main__":
    threads = os.cpu_count()
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=CLIENTS,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": min(threads, 2)},
        },
    )
    # Two stamps come before the measured rounds: that of the initial model and that of the first round.
    pairs = list(zip(rounds[1:], rounds[2:]))
    print(
        json.dumps(
            {
                "bench": "overhead",
                "peer": f"flwr {version('flwr')}, ray {version('ray')}",
                "parameters": PARAMETERS,
                "population": CLIENTS,
                "cohort": CLIENTS,
                "wall_ms": [1e3 * (after[0] - before[0]) for before, after in pairs],
                "cpu_ms": [1e3 * (after[1] - before[1]) for before, after in pairs],
                "peak_mib": peak,
                "load": os.getloadavg()[0],
            }
        )
    )
