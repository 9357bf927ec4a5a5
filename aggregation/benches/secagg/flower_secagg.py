"""One session of Flower's SecAgg+ in one process: CPU seconds per client and of the server, as one line of JSON.

Flower's own code runs at both ends (`secaggplus_mod`, `SecAggPlusWorkflow`), every client takes part with every
message, and the average is compared with the plain one. Only the transport is replaced by function calls, so its cost
is left out, as it is on our side. Needs Python 3.11 and flwr 1.41; `cargo bench --bench secagg -- --flower PYTHON`
runs it.
"""

import argparse
import json
import logging
import os
import random
import time
from collections import Counter
from importlib.metadata import version

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.common.secure_aggregation.secaggplus_constants import Key as SecAggKey
from flwr.compat.common.recorddict_compat import (
    fitins_to_recorddict,
    fitres_to_recorddict,
    parameters_to_arrayrecord,
)
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow, WorkflowState
from flwr.supercore.task_identity import TaskIdentity

STAGES = ["setup", "share_keys", "collect_masked_vectors", "unmask"]
EXAMPLES = 1000


class Proxy:
    """All that the workflow asks of a connected client."""

    def __init__(self, node_id):
        self.node_id = node_id


class Strategy:
    """Trains on everyone and keeps the average that the workflow unmasked."""

    def __init__(self, nodes):
        self.proxies = [Proxy(node) for node in nodes]
        self.average = None

    def configure_fit(self, _round, parameters, _manager):
        return [(proxy, FitIns(parameters, {})) for proxy in self.proxies]

    def aggregate_fit(self, _round, results, _failures):
        self.average = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


class Clients:
    """The workflow's grid with the clients behind it: each instruction is carried out on the spot, and timed."""

    def __init__(self, vectors, dropped):
        self.vectors = vectors
        self.dropped = dropped
        self.contexts = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in vectors
        }
        self.stage = None
        self.cpu = Counter()
        self.untimed = 0.0
        self.replies = Counter()
        self.upload_bytes = 0

    def send_and_receive(self, messages, *, timeout=None):
        start = time.process_time()
        replies = [self.reply(message) for message in messages]
        self.untimed += time.process_time() - start
        return replies

    def reply(self, message):
        node = message.metadata.dst_node_id
        if self.stage == "collect_masked_vectors" and node in self.dropped:
            return Message(error=Error(code=0, reason="dropped out"), reply_to=message)
        # A transport would hand every client a copy; the mod takes entries out of its own.
        message.content = RecordDict(
            {
                name: ConfigRecord(dict(record)) if isinstance(record, ConfigRecord) else record
                for name, record in message.content.items()
            }
        )
        training = 0.0

        def train(instruction, _context):
            nonlocal training
            start = time.process_time()
            result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.vectors[node]]), EXAMPLES, {})
            trained = Message(fitres_to_recorddict(result, keep_input=False), reply_to=instruction)
            training = time.process_time() - start
            return trained

        start = time.process_time()
        reply = secaggplus_mod(message, self.contexts[node], train)
        self.cpu[self.stage] += time.process_time() - start - training
        self.replies[self.stage] += 1
        if self.stage == "collect_masked_vectors":
            vectors = reply.content.config_records[RECORD_KEY_CONFIGS][SecAggKey.MASKED_PARAMETERS]
            self.upload_bytes = sum(map(len, vectors))
        return reply


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--length", type=int, default=1 << 20)
    arguments.add_argument("--clients", type=int, default=100)
    arguments.add_argument("--neighbours", type=int, default=20)
    arguments.add_argument("--threshold", type=int, default=14)
    arguments.add_argument("--dropouts", type=int, default=10)
    arguments = arguments.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    random.seed(0)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1

    nodes = list(range(1, arguments.clients + 1))
    noise = np.random.default_rng(0)
    base = noise.standard_normal(arguments.length).astype(np.float32) * np.float32(0.1)
    vectors = {node: np.roll(base, node) for node in nodes}
    dropped = set(random.sample(nodes, arguments.dropouts))
    expected = np.mean([vectors[node] for node in nodes if node not in dropped], axis=0, dtype=np.float64)

    # The workflow counts a client among its own neighbours.
    workflow = SecAggPlusWorkflow(
        num_shares=arguments.neighbours + 1,
        reconstruction_threshold=arguments.threshold,
        max_weight=EXAMPLES,
    )
    strategy, clients, state = Strategy(nodes), Clients(vectors, dropped), WorkflowState()
    context = LegacyContext(
        Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}), strategy=strategy
    )
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    start_model = ndarrays_to_parameters([np.zeros(1, dtype=np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = parameters_to_arrayrecord(start_model, keep_input=True)

    server = {}
    for stage in STAGES:
        clients.stage, clients.untimed = stage, 0.0
        start = time.process_time()
        if not getattr(workflow, f"{stage}_stage")(clients, context, state):
            raise SystemExit(f"stage {stage} failed")
        server[stage] = time.process_time() - start - clients.untimed

    # The 22-bit grid over [-8, 8] is rounded once for each client.
    error = float(np.abs(strategy.average - expected).max())
    if error > 16 / (1 << 22) + 1e-6:
        raise SystemExit(f"average is off by {error}")
    per_client = {stage: clients.cpu[stage] / clients.replies[stage] for stage in STAGES}
    print(
        json.dumps(
            {
                "flwr": version("flwr"),
                "numpy": version("numpy"),
                **vars(arguments),
                "client_cpu_s": sum(per_client.values()),
                "client_stages_cpu_s": per_client,
                "server_cpu_s": sum(server.values()),
                "server_stages_cpu_s": server,
                "upload_bytes": clients.upload_bytes,
                "largest_error": error,
            }
        )
    )


if __name__ == "__main__":
    main()
