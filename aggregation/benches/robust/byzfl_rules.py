"""CPU seconds of byzfl's rules on rows from a file, as one line of JSON.

The numpy path: rows are a matrix of float32. Every rule runs at least three times, or until ten seconds are over, on a
copy of its own, since some change their input; the median counts. What is compared comes from a rule without a past:
centred clipping starts at its last result. `head` is the beginning of each result, for
comparison. Needs byzfl 0.0.11, which imports torch; `cargo bench --bench robust -- --byzfl PYTHON` runs it.
"""

import argparse
import json
import os
import statistics
import time
from importlib.metadata import version

# One thread, before numpy looks.
for library in ["OMP", "OPENBLAS", "MKL"]:
    os.environ[f"{library}_NUM_THREADS"] = "1"

import byzfl
import numpy as np

HEAD = 64


def rules(f):
    """byzfl's rules under the names that they have here, with the defaults of byzfl."""
    return {
        "mean": byzfl.Average(),
        "median": byzfl.Median(),
        "trimmed-mean": byzfl.TrMean(f=f),
        "meamed": byzfl.Meamed(f=f),
        "rfa": byzfl.GeometricMedian(nu=0.1, T=3),
        "krum": byzfl.Krum(f=f),
        "multi-krum": byzfl.MultiKrum(f=f),
        "monna": byzfl.MoNNA(f=f, idx=0),
        "centered-clipping": byzfl.CenteredClipping(L=1, tau=100.0),
        "caf": byzfl.CAF(f=f),
        "clip": byzfl.Clipping(c=2.0),
        "arc": byzfl.ARC(f=f),
        "nnm": byzfl.NNM(f=f),
        "bucketing": byzfl.Bucketing(s=2),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", required=True, help="file of float32, row after row")
    arguments.add_argument("--count", type=int, required=True)
    arguments.add_argument("--byzantine", type=int, required=True)
    arguments.add_argument("--only", default="")
    arguments = arguments.parse_args()
    rows = np.fromfile(arguments.rows, dtype=np.float32).reshape(arguments.count, -1)

    seconds, heads = {}, {}
    fresh = rules(arguments.byzantine)
    for name, rule in rules(arguments.byzantine).items():
        if arguments.only not in name:
            continue
        times = []
        while len(times) < 3 and sum(times) < 10:
            copy = rows.copy()
            start = time.process_time()
            rule(copy)
            times.append(time.process_time() - start)
        result = fresh[name](rows.copy())
        seconds[name] = statistics.median(times)
        heads[name] = [float(value) for value in np.atleast_2d(result)[0, :HEAD]]
    versions = {name: version(name) for name in ["byzfl", "numpy", "scipy"]}
    print(json.dumps({**versions, "seconds": seconds, "head": heads}))


if __name__ == "__main__":
    main()
