"""Writes reference.json: rules that no library computes deterministically, each as its paper defines it, on byzfl.json's rows.

Independent of the program that is tested, and slow: covariances are d x d, subsets are enumerated.
"""

import itertools
import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent


def caf(rows, f):
    weights, best = np.ones(len(rows)), (np.inf, rows.mean(0))
    while weights.sum() > len(rows) - 2 * f:
        mean = weights @ rows / weights.sum()
        about = rows - mean
        values, vectors = np.linalg.eigh((weights[:, None] * about).T @ about / weights.sum())
        if values[-1] < best[0]:
            best = (values[-1], mean)
        tau = (about @ vectors[:, -1]) ** 2
        weights = weights * np.clip(1 - tau / tau[weights > 0].max(), 0, 1)
    return best[1]


def smea(rows, f):
    def spread(subset):
        return np.linalg.eigvalsh(np.cov(rows[list(subset)].T, bias=True))[-1]

    return rows[list(min(itertools.combinations(range(len(rows)), len(rows) - f), key=spread))].mean(0)


def krum_scores(rows, neighbours, power):
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    return [np.sort(np.delete(distances[i], i))[:neighbours].__pow__(power).sum() for i in range(len(rows))]


def krum(rows, f, neighbours, power):
    return rows[np.argmin(krum_scores(rows, len(rows) - f - neighbours, power))]


def multi_krum(rows, f, neighbours, power, spared):
    order = np.argsort(krum_scores(rows, len(rows) - f - neighbours, power), kind="stable")
    return rows[order[: len(rows) - f - spared]].mean(0)


def around_median(rows, keep):
    away = np.abs(rows - np.median(rows, axis=0))
    return np.take_along_axis(rows, np.argsort(away, axis=0, kind="stable")[:keep], axis=0).mean(0)


def bulyan(rows, f, at_once):
    n = len(rows)
    if at_once:
        order = np.argsort(krum_scores(rows, n - f - 2, 2), kind="stable")
        return around_median(rows[order[: n - 2 * f]], n - 4 * f)
    left, selected = list(range(n)), []
    while len(selected) < n - 2 * f:
        scores = krum_scores(rows[left], max(len(left) - f - 2, 0), 2)
        selected.append(left.pop(int(np.argmin(scores))))
    return around_median(rows[sorted(selected)], n - 4 * f)


def dnc(rows, f, c):
    about = rows - rows.mean(0)
    scores = (about @ np.linalg.svd(about)[2][0]) ** 2
    return rows[np.argsort(scores, kind="stable")[: len(rows) - int(c * f)]].mean(0)


def fltrust(rows, reference):
    norms = np.linalg.norm(rows, axis=1)
    trust = np.maximum(rows @ reference / norms / np.linalg.norm(reference), 0)
    return trust @ (rows / norms[:, None]) * np.linalg.norm(reference) / trust.sum()


def robust_learning_rate(rows, threshold):
    return rows.mean(0) * np.where(np.abs(np.sign(rows).sum(0)) >= threshold, 1, -1)


def norm_bound(rows, c):
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows * np.minimum(1, c / norms)).mean(0)


def foolsgold(rows, history):
    n = len(rows)
    unit = history / np.linalg.norm(history, axis=1, keepdims=True)
    cosines = unit @ unit.T - np.eye(n)
    most = np.maximum(cosines, 0).max(1)
    for i, j in itertools.permutations(range(n), 2):
        if most[i] < most[j]:
            cosines[i, j] *= most[i] / most[j]
    weights = np.clip(1 - np.maximum(cosines, 0).max(1), 0, 1)
    weights = np.minimum(weights / weights.max(), 0.99)
    with np.errstate(divide="ignore"):
        weights = np.clip(np.log(weights / (1 - weights)) + 0.5, 0, 1)
    return weights @ rows / weights.sum()


def case(given):
    rows, f = np.array(given["X"]), given["f"]
    smaller = min(f, (len(rows) - 3) // 4)
    krum_f = min(f, (len(rows) - 3) // 2)
    reference = np.array(given["H"]).mean(0)
    history = np.cumsum(rows, axis=0)
    out = {
        "caf": caf(rows, f),
        "smea": smea(rows, f),
        "krum paper": krum(rows, krum_f, 2, 2),
        "krum flower": krum(rows, krum_f, 2, 2),
        "krum garfield": krum(rows, krum_f, 1, 1),
        "krum epfml": krum(rows, krum_f, 2, 4),
        "multi-krum paper": multi_krum(rows, krum_f, 2, 2, 0),
        "multi-krum flower": multi_krum(rows, krum_f, 2, 2, 0),
        "multi-krum garfield": multi_krum(rows, krum_f, 1, 1, 2),
        "multi-krum epfml": multi_krum(rows, krum_f, 2, 4, 0),
        "bulyan paper": bulyan(rows, smaller, False),
        "bulyan flower": bulyan(rows, smaller, True),
        "dnc": dnc(rows, f, 1),
        "dnc 1.5": dnc(rows, f, 1.5),
        "norm-bound": norm_bound(rows, 1.25),
        "robust-learning-rate": robust_learning_rate(rows, f + 1),
        "fltrust": fltrust(rows, reference),
        "foolsgold": foolsgold(rows, rows),
        "foolsgold history": foolsgold(rows, history),
    }
    return {
        "bulyan_f": smaller,
        "krum_f": krum_f,
        "reference": reference.tolist(),
        "history": history.tolist(),
        "out": {name: np.asarray(vector).tolist() for name, vector in out.items()},
    }


if __name__ == "__main__":
    cases = json.loads((FOLDER / "byzfl.json").read_text())["cases"]
    written = {"source": f"reference.py, numpy {np.__version__}", "cases": [case(given) for given in cases]}
    (FOLDER / "reference.json").write_text(json.dumps(written) + "\n")
