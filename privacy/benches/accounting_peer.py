"""Milliseconds per epsilon query of dp-accounting: reads cases as JSON lines, writes a JSON line for each.

A query is an accountant built, its rounds composed and its epsilon read. What is reported is the least of some repeats.
"""

import json
import logging
import sys
import time
from importlib.metadata import version

import dp_accounting
from dp_accounting import pld, rdp

logging.getLogger("absl").setLevel(logging.ERROR)

ADD_REMOVE = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE


def query(accountant, case):
    event = dp_accounting.GaussianDpEvent(case["sigma"])
    if case["rate"] < 1:
        event = dp_accounting.PoissonSampledDpEvent(case["rate"], event)
    accountant.compose(event, case["rounds"])
    return accountant.get_epsilon(case["delta"])


def calibrate(make, case):
    def event(sigma):
        one = dp_accounting.PoissonSampledDpEvent(case["rate"], dp_accounting.GaussianDpEvent(sigma))
        return dp_accounting.SelfComposedDpEvent(one, case["rounds"])

    return dp_accounting.calibrate_dp_mechanism(make, event, case["epsilon"], case["delta"])


def main():
    kinds = {
        "rdp": rdp.RdpAccountant,
        "pld": lambda: pld.PLDAccountant(ADD_REMOVE),
    }
    print(json.dumps({"version": version("dp-accounting")}), flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        make = kinds[case["accountant"]]
        times = []
        for _ in range(case["repeats"]):
            start = time.perf_counter()
            found = calibrate(make, case) if "epsilon" in case else query(make(), case)
            times.append(1e3 * (time.perf_counter() - start))
        print(json.dumps({"ms": min(times), "found": float(found)}), flush=True)


if __name__ == "__main__":
    main()
