"""The latency model on a public table of architectures and latencies (HAT, arXiv 2005.14187).

`python benchmarks/latency_model.py --table wmt14ende_cpu_raspberrypi_all.csv`: the table is in the repository of
mit-han-lab/hardware-aware-transformers under latency_dataset/. Random splits into 80% and 20%; the models see the first
so many rows of the 80%. scikit-learn's Gaussian process is measured beside it where it is installed.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pandas as pd

from rankitect.deploy.latency_model import LatencyModel


def ours(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Predictions of the latency model."""
    return LatencyModel().fit(x, y).predict(new).mean


def scikit(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Predictions of scikit-learn's Gaussian process, standardised, with a kernel for each feature and noise."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    mean, std = x.mean(0), x.std(0) + 1e-9
    kernel = ConstantKernel() * RBF(np.ones(x.shape[1])) + WhiteKernel()
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit((x - mean) / std, y)
    return np.asarray(model.predict((new - mean) / std))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", required=True, help="the CSV file")
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--splits", type=int, default=5)
    given = parser.parse_args()
    frame = pd.read_csv(given.table)
    outputs = [c for c in frame.columns if c.startswith("latency_mean")]
    features = frame[[c for c in frame.columns if not c.startswith("latency")]].to_numpy(float)
    latency = frame[outputs].sum(axis=1).to_numpy()
    methods: dict[str, Callable[..., np.ndarray]] = {"Rankitect": ours}
    if find_spec("sklearn"):
        methods["scikit-learn Gaussian process"] = scikit
    print("| training rows | model | mean absolute percentage error (range of splits) |\n|---|---|---|")
    for rows in given.rows:
        for name, method in methods.items():
            errors = []
            for split in range(given.splits):
                order = np.random.default_rng(split).permutation(len(features))
                test, train = order[: len(order) // 5], order[len(order) // 5 :][:rows]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = method(features[train], latency[train], features[test])
                errors.append(100 * np.mean(np.abs(found / latency[test] - 1)))
            print(f"| {rows} | {name} | {np.mean(errors):.1f}% ({min(errors):.1f} to {max(errors):.1f}) |", flush=True)


if __name__ == "__main__":
    main()
