"""The competitors' side of `ranking_throughput.py`: FuxiCTR and deepctr-torch, each on its own training path.

Runs under the interpreter that has them, where Rankitect is not installed: called with a job as JSON, it prints a line
of JSON. It also holds what both sides must do alike: the order of rows, the losses that NE is made of, peak memory.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Job", "batch_rows", "entropy_terms", "peak_memory", "report"]

POOL = 100
"""Batches in memory that a timed run goes round on; fewer rows take less memory, and are kinder to caches."""
PREDICTED = 8192
"""Rows of a forward pass when measuring quality."""
LEAST_STEPS = 5
"""Timed steps at the least, however slow, and those before them that say how many the time is enough for."""


@dataclass(frozen=True)
class Job:
    """What one worker does.

    Attributes:
        library: "rankitect", "fuxictr" or "deepctr-torch".
        model: "dlrm", "dcnv2" or "deepfm".
        folder: Of the encoded table.
        data: Settings of the table, for Rankitect, which opens it itself.
        numeric: Names of the numeric features.
        features: Name, table rows and slots of each categorical feature.
        rows: Training rows.
        embedding: Width of all tables.
        hidden: Widths of the MLP.
        bottom: Widths of DLRM's MLP on numbers, before its last layer.
        cross_layers: Depth of DCNv2's cross network.
        batch: Rows of a step.
        optimizer: "adagrad" or "adam".
        lr: Learning rate of everything.
        clip: Largest gradient norm, where a library clips.
        threads: Of torch.
        seed: Of weights and of the rows' order.
        seconds: Of the timed part, about.
        warmup: Steps before it.
        steps: Train so many steps and measure quality; 0 measures throughput.
        losses: File for the test rows' losses.
        numbers: What FuxiCTR's DCNv2 and DeepFM do with numbers: "raw", or "embedded" as in its own model zoo.
    """

    library: str
    model: str
    folder: str
    data: dict[str, Any]
    numeric: list[str]
    features: list[tuple[str, int, int]]
    rows: int
    embedding: int
    hidden: list[int]
    bottom: list[int]
    cross_layers: int
    batch: int
    optimizer: str
    lr: float
    clip: float
    threads: int
    seed: int
    seconds: float
    warmup: int
    steps: int
    losses: str
    numbers: str

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))


# --- what both sides do alike -----------------------------------------------------------------------------------------
def batch_rows(rows: int, batch: int, step: int) -> int:
    """Rows of a step, where the last batch of an epoch takes what is left."""
    place = step % -(-rows // batch)
    return min(batch, rows - place * batch)


def epoch_order(rows: int, seed: int, epoch: int) -> NDArray[Any]:
    """The order in which Rankitect reads the training rows."""
    return np.random.default_rng([seed, epoch]).permutation(np.arange(rows, dtype=np.uint32))


def entropy_terms(probability: NDArray[np.float64], label: NDArray[Any]) -> NDArray[np.float32]:
    """Log-loss of each row, nats; their mean over the entropy of the mean label is NE."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    found: NDArray[np.float32] = (-label * np.log(p) - (1 - label) * np.log1p(-p)).astype(np.float32)
    return found


def peak_memory() -> int:
    """The most memory that this process had, bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss may be the parent's, from before this program was loaded
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def report(job: Job, found: Mapping[str, float] | None = None, losses: NDArray[np.float32] | None = None) -> str:
    """The line that the parent reads; losses go to the job's file."""
    if losses is not None:
        np.save(job.losses, losses)
    return json.dumps({"library": job.library, "model": job.model, **(found or {}), "memory": peak_memory()})


# --- the competitors --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rows:
    """Encoded rows.

    Attributes:
        numeric: [N, numbers] float32.
        ids: [N, slots] int64; slots of a multi-hot feature are one higher, and 0 where unused.
        labels: [N] float32.
    """

    numeric: NDArray[np.float32]
    ids: NDArray[np.int64]
    labels: NDArray[np.float32]

    @classmethod
    def read(cls, job: Job, split: str, chosen: NDArray[Any] | slice) -> Rows:
        """Some rows of a split, copied to memory."""

        def array(kind: str) -> NDArray[Any]:
            found: NDArray[Any] = np.load(Path(job.folder) / f"{split}.{kind}.npy", mmap_mode="r")[chosen]
            return found

        ids = array("ids").astype(np.int64)
        shift = [int(slots > 1) for _, _, slots in job.features for _ in range(slots)]
        return cls(np.array(array("numeric")), ids + np.array(shift), np.array(array("labels")))


class Trainer(Protocol):
    """A model in a library's hands."""

    def hold(self, rows: Rows) -> None:
        """Take rows in the form that training reads."""

    def train(self, stop: int) -> None:
        """One pass over the first so many rows held, in their order."""

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """Probabilities, [N]."""


def restart(model: torch.nn.Module, seed: int) -> None:
    """Random weights of Rankitect's distributions, so that all start alike."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                wide = module.weight.shape[1] == 1
                module.weight.zero_() if wide else module.weight.normal_(0.0, 0.02)
                if module.padding_idx is not None:
                    module.weight[module.padding_idx].zero_()
            elif isinstance(module, torch.nn.Linear):
                module.weight.normal_(0.0, module.in_features**-0.5)
                if module.bias is not None:
                    module.bias.zero_()
        for name, weight in model.named_parameters():
            if name in ("crossnet.kernels", "linear_model.weight"):  # of deepctr-torch, bare
                weight.normal_(0.0, weight.shape[-2] ** -0.5)


class FuxiCTR:
    """A model from FuxiCTR's layers, trained by its `BaseModel.train_step` on tensors that are in memory."""

    def __init__(self, job: Job) -> None:
        self.batch = job.batch
        self.names = (*job.numeric, "label")
        self.features = job.features
        self.model = _fuxictr_model(job)
        self.columns: dict[str, torch.Tensor] = {}

    def _columns(self, rows: Rows) -> dict[str, torch.Tensor]:
        """A tensor for each feature, as its batches have them."""
        import torch

        found = {f"I_{name}": torch.from_numpy(c) for name, c in zip(self.names, rows.numeric.T.copy(), strict=False)}
        first = 0
        for name, _, slots in self.features:
            part = rows.ids[:, first] if slots == 1 else rows.ids[:, first : first + slots]
            found[f"C_{name}"] = torch.from_numpy(np.ascontiguousarray(part))
            first += slots
        return found

    def hold(self, rows: Rows) -> None:
        """See `Trainer`."""
        import torch

        self.columns = {**self._columns(rows), "label": torch.from_numpy(rows.labels)}

    def train(self, stop: int) -> None:
        """See `Trainer`."""
        self.model.train()
        for start in range(0, stop, self.batch):
            part = slice(start, min(start + self.batch, stop))
            self.model.train_step({name: column[part] for name, column in self.columns.items()}).item()

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """See `Trainer`."""
        import torch

        columns, found = self._columns(rows), []
        self.model.eval()
        with torch.no_grad():
            for start in range(0, len(rows.labels), PREDICTED):
                batch = {name: column[start : start + PREDICTED] for name, column in columns.items()}
                found.append(self.model(batch)["y_pred"].double().numpy().ravel())
        return np.concatenate(found)


def _fuxictr_model(job: Job) -> Any:
    """DLRM, DCNv2 or DeepFM on FuxiCTR's `BaseModel`.

    Its package leaves these models out (they are in its repository's model zoo), so they are put together from its
    layers here.
    """
    import torch
    from fuxictr.features import FeatureMap  # type: ignore[import-not-found]
    from fuxictr.pytorch import layers  # type: ignore[import-not-found]
    from fuxictr.pytorch.models import BaseModel  # type: ignore[import-not-found]

    feature_map = FeatureMap("throughput", job.folder)
    feature_map.labels, feature_map.default_emb_dim = ["label"], job.embedding
    numbers = [f"I_{name}" for name in job.numeric]
    specs: OrderedDict[str, dict[str, Any]] = OrderedDict((name, {"source": "", "type": "numeric"}) for name in numbers)
    for name, rows, slots in job.features:
        one = {"source": "", "type": "categorical", "vocab_size": rows}
        many = {"type": "sequence", "vocab_size": rows + 1, "padding_idx": 0, "max_len": slots}
        pooled = {**many, "source": "", "feature_encoder": "layers.MaskedSumPooling()"}
        specs[f"C_{name}"] = one if slots == 1 else pooled
    feature_map.features = specs
    feature_map.num_fields = feature_map.get_num_fields()
    feature_map.set_column_index()
    raw = job.numbers == "raw" or job.model == "dlrm"
    width, hidden, fields = job.embedding, list(job.hidden), len(job.features)
    inputs = fields * width + len(numbers) * (1 if raw else width)

    class Ranker(BaseModel):
        def __init__(self) -> None:
            unused = {"metrics": ["logloss"], "model_root": job.folder, "verbose": 0}
            super().__init__(feature_map, model_id=job.model, gpu=-1, **unused)
            left_out = {"not_required_feature_columns": numbers if raw else None}
            self.vectors = layers.FeatureEmbedding(feature_map, width, **left_out)
            if job.model == "dlrm":
                pairs = (fields + 1) * fields // 2
                ends = {"output_dim": width, "output_activation": "ReLU"}
                self.bottom = layers.MLP_Block(len(numbers), list(job.bottom), **ends)
                self.dot = layers.InnerProductInteraction(fields + 1, output="inner_product")
                self.top = layers.MLP_Block(pairs + width, hidden, output_dim=1)
            elif job.model == "dcnv2":
                self.cross = layers.CrossNetV2(inputs, job.cross_layers)
                self.deep = layers.MLP_Block(inputs, hidden)
                self.last = torch.nn.Linear(inputs + hidden[-1], 1)
            else:
                self.fm = layers.FactorizationMachine(feature_map)
                self.deep = layers.MLP_Block(inputs, hidden, output_dim=1)
            self.compile({"adagrad": "Adagrad", "adam": "adam"}[job.optimizer], "binary_crossentropy", job.lr)

        def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            x = self.get_inputs(batch)
            vectors = self.vectors(x)
            values = torch.stack([x[name] for name in numbers], 1)
            flat = vectors.flatten(1)
            if raw:
                flat = torch.cat([values, flat], 1)
            if job.model == "dlrm":
                field = self.bottom(values)
                dots = self.dot(torch.cat([field[:, None], vectors], 1))
                logit = self.top(torch.cat([field, dots], 1))
            elif job.model == "dcnv2":
                logit = self.last(torch.cat([self.cross(flat), self.deep(flat)], 1))
            else:
                logit = self.fm(x, vectors) + self.deep(flat)
            return {"y_pred": self.output_activation(logit)}

    model = Ranker()
    model._max_gradient_norm = job.clip  # `fit` sets it, before its steps
    restart(model, job.seed)
    return model


class DeepCTR:
    """deepctr-torch's DeepFM or DCN (of matrices: DCNv2), trained by its `fit` on an array that is in memory."""

    def __init__(self, job: Job) -> None:
        import torch
        from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat  # type: ignore[import-not-found]
        from deepctr_torch.models import DCN, DeepFM  # type: ignore[import-not-found]

        columns: list[Any] = []
        for name, rows, slots in job.features:
            one = SparseFeat(f"C_{name}", rows + int(slots > 1), embedding_dim=job.embedding)
            columns.append(one if slots == 1 else VarLenSparseFeat(one, slots, combiner="sum"))
        columns.append(DenseFeat("numbers", len(job.numeric)))
        keys: dict[str, Any] = {"dnn_hidden_units": tuple(job.hidden), "l2_reg_linear": 0, "l2_reg_embedding": 0}
        if job.model == "dcnv2":
            cross = {"cross_num": job.cross_layers, "cross_parameterization": "matrix", "l2_reg_cross": 0}
            self.model = DCN([], columns, **cross, **keys)
        else:
            self.model = DeepFM(columns, columns, **keys)
        restart(self.model, job.seed)
        kind = {"adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}[job.optimizer]
        self.model.compile(kind(self.model.parameters(), lr=job.lr), "binary_crossentropy")
        self.batch = job.batch

    @staticmethod
    def _matrix(rows: Rows) -> NDArray[np.float32]:
        return np.concatenate([rows.ids.astype(np.float32), rows.numeric], 1)

    def hold(self, rows: Rows) -> None:
        """See `Trainer`."""
        self.inputs, self.labels = self._matrix(rows), rows.labels

    def train(self, stop: int) -> None:
        """See `Trainer`."""
        self.model.fit([self.inputs[:stop]], self.labels[:stop], batch_size=self.batch, verbose=0, shuffle=False)

    def predict(self, rows: Rows) -> NDArray[np.float64]:
        """See `Trainer`."""
        found: NDArray[np.float64] = self.model.predict([self._matrix(rows)], PREDICTED)
        return found.ravel()


# --- the two measurements ---------------------------------------------------------------------------------------------
def throughput(trainer: Trainer, job: Job) -> dict[str, float]:
    """Rows a second, after a warm-up that also says how many steps the time is enough for."""
    rows = min(job.rows, POOL * job.batch)
    trainer.hold(Rows.read(job, "train", epoch_order(job.rows, job.seed, 0)[:rows]))
    trainer.train(job.warmup * job.batch)
    start = time.perf_counter()
    trainer.train(LEAST_STEPS * job.batch)
    step = (time.perf_counter() - start) / LEAST_STEPS
    left = steps = max(LEAST_STEPS, round(job.seconds / step))
    done, epoch = 0, -(-rows // job.batch)
    start = time.perf_counter()
    while left:
        now = min(left, epoch)
        trainer.train(min(now * job.batch, rows))
        done, left = done + min(now * job.batch, rows), left - now
    return {"rows_per_second": done / (time.perf_counter() - start), "steps": steps}


def quality(trainer: Trainer, job: Job) -> NDArray[np.float32]:
    """Losses of the test rows after the job's steps on the rows that Rankitect trains on, in the same batches."""
    left, epoch = job.steps, 0
    while left:
        order = epoch_order(job.rows, job.seed, epoch)[: left * job.batch]
        trainer.hold(Rows.read(job, "train", order))
        trainer.train(len(order))
        left, epoch = left - -(-len(order) // job.batch), epoch + 1
    test = Rows.read(job, "test", slice(None))
    return entropy_terms(trainer.predict(test), test.labels)


def main() -> None:
    """Do a job."""
    if len(sys.argv) < 2:
        print("Nothing to do: ranking_throughput.py calls this for FuxiCTR and deepctr-torch.")
        return
    job = Job(**json.loads(sys.argv[1]))
    with contextlib.redirect_stdout(sys.stderr):  # the libraries talk
        import torch

        torch.set_num_threads(job.threads)
        trainer: Trainer = FuxiCTR(job) if job.library == "fuxictr" else DeepCTR(job)
        line = report(job, losses=quality(trainer, job)) if job.steps else report(job, throughput(trainer, job))
    print(line)


if __name__ == "__main__":
    main()
