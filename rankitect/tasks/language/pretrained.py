"""The pretrained model of a study: read, calibrated on training text, and made a supernet to inherit from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.contracts import StopRequested
from rankitect.errors import ConfigError, RankitectError
from rankitect.tasks.language.settings import SCRATCH, LanguageConfig
from rankitect.tasks.shared_weights import SharedWeights
from rankitect.training.host import give_back_memory
from rankitect.training.placement import placement

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import Spent
    from rankitect.data.tokenizer import Tokenizer
    from rankitect.data.windows import TextWindows
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.backbone import Backbone
    from rankitect.models.checkpoints import DecoderCheckpoint
    from rankitect.models.importance import Statistics
    from rankitect.models.supernet import Standalone, Supernet
    from rankitect.tasks.language.settings import BackboneConfig
    from rankitect.training.distill import Distillation
    from rankitect.training.settings import DistilConfig
    from rankitect.training.text import TextObjective

__all__ = ["Pretrained", "PrunedBackbone", "open_checkpoint"]

_CALIBRATION_BATCH = 1024
"""Tokens of a calibration batch."""


def open_checkpoint(config: BackboneConfig, parts: Parts) -> DecoderCheckpoint:
    """The pretrained model that a configuration names.

    Raises:
        RankitectError: It cannot be read or fetched; names `task.backbone`.
    """
    from rankitect.models.candidate import load_backbone

    if config.backbone == SCRATCH:
        if not isinstance(config, LanguageConfig):
            raise ConfigError("task.backbone is none, and this task prunes a pretrained model: choose one.")
        return _no_weights(config)
    if config.backbone == "random":
        return _tiny_backbone(parts.config.seed)
    parts.say(f"Backbone: {config.backbone}")
    try:
        return load_backbone(config.backbone)
    except RankitectError as error:
        raise type(error)(f"task.backbone={config.backbone}: {error}") from error


def _no_weights(config: LanguageConfig) -> DecoderCheckpoint:
    """Sizes and tokenizer of models from scratch, without weights.

    Raises:
        RankitectError: The tokenizer cannot be read, or the vocabulary is too small for it.
    """
    from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig

    shape = config.shape
    tokenizer = _tokenizer(config.tokenizer)
    if shape.vocab < tokenizer.vocab_size:
        raise ConfigError(
            f"task.shape.vocab is {shape.vocab}; task.tokenizer={config.tokenizer} has {tokenizer.vocab_size} tokens."
        )
    try:
        sizes = DecoderConfig(
            vocab=shape.vocab,
            d_model=shape.width,
            n_layers=shape.layers,
            n_heads=shape.heads,
            n_kv_heads=shape.kv_heads,
            head_dim=shape.head,
            ffn=shape.ffn,
            rope_base=shape.rope_base,
            norm_eps=shape.norm_eps,
            tied_embeddings=shape.tied,
            context=shape.context,
        )
    except RankitectError as error:
        raise ConfigError(f"task.shape: {error}") from error
    return DecoderCheckpoint(sizes, {}, tokenizer, "random weights")


def _tokenizer(name: str) -> Tokenizer:
    """A tokenizer alone: that of bytes, of a folder, or of a pretrained model."""
    from rankitect.data.tokenizer import ByteTokenizer, load_tokenizer
    from rankitect.models.checkpoints import load_checkpoint

    if name == "bytes":
        return ByteTokenizer()
    try:
        folder = Path(name)
        return load_tokenizer(folder) if (folder / "tokenizer.json").is_file() else load_checkpoint(name).tokenizer
    except RankitectError as error:
        raise type(error)(f"task.tokenizer={name}: {error}") from error


def _tiny_backbone(seed: int) -> DecoderCheckpoint:
    """A small random Llama on bytes, for tests and first looks."""
    from rankitect.models.checkpoints import DecoderConfig, random_checkpoint

    config = DecoderConfig(vocab=256, d_model=48, n_layers=4, n_heads=6, n_kv_heads=3, head_dim=8, ffn=128)
    return random_checkpoint(config, seed)


def _key(facts: list[Any], digits: int = 24) -> str:
    """A hash of plain data, to name what is kept of them."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:digits]


class Pretrained:
    """A pretrained model in the searched space.

    Args:
        checkpoint: The model as it was read.
        config: Criterion, refits, and how much text calibrates.
        data: The text.
        parts: The study's; the space is made after the task, so it is looked up when it is first needed.
    """

    def __init__(self, checkpoint: DecoderCheckpoint, config: BackboneConfig, data: TextWindows, parts: Parts) -> None:
        self.checkpoint, self._config, self._data, self._parts = checkpoint, config, data, parts

    @cached_property
    def statistics(self) -> Statistics:
        """Calibration statistics of the backbone, from the cache where they were gathered before."""
        from rankitect.data.assets import cache_root
        from rankitect.models.statistics_file import load_statistics, save_statistics

        path = cache_root() / "statistics" / f"{_key(self._calibrated)}.safetensors"
        statistics = load_statistics(path)
        if statistics is None:
            self._parts.say(f"Calibration: {self._config.calibration_tokens:,} tokens through the backbone")
            statistics = self._gather()
            save_statistics(path, statistics)
        return statistics

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the backbone's weights, and of all else that says what it computes of them."""
        from rankitect.training.distill import weights_fingerprint

        return _key([weights_fingerprint(self._plain), self.checkpoint.config.to_json()], 64)

    @property
    def _calibrated(self) -> list[Any]:
        """What calibration depends on: the model, the text, which of it (the seed decides, as it does which tokens the
        gradients are of), how much of it with and without gradients, and in which precision."""
        context, seed = self._config.context, self._parts.config.seed
        return [self.fingerprint, self._data.text.fingerprint, context, *self._calibration(), seed, placement().named]

    @cached_property
    def _plain(self) -> Any:
        """The backbone as a supernet, its units in the order of the checkpoint."""
        from rankitect.models.pretrained import space_tensors
        from rankitect.models.supernet import Supernet

        if self._config.backbone == SCRATCH:
            raise ConfigError(
                "this needs a pretrained backbone, and task.backbone is none: choose one, or a method that trains its "
                "own weights (controller=one_shot), or train one model (python -m rankitect.train)."
            )
        return Supernet(self._parts.graph_space, tensors=space_tensors(self.checkpoint, share=True))

    def as_read(self, architecture: Architecture) -> Standalone:
        """The model of an architecture with the backbone's units in the order of the checkpoint: for the whole one."""
        from rankitect.models.pretrained import space_tensors
        from rankitect.models.supernet import Supernet

        return Supernet(self._parts.graph_space, tensors=space_tensors(self.checkpoint)).extract(architecture)

    def _calibration(self) -> tuple[int, int, int]:
        """Windows of a batch, batches, and how many of these also with gradients."""
        c = self._config
        windows = self._data.require("train", 1, c.context).windows(c.context)
        batch = max(1, min(_CALIBRATION_BATCH // c.context, windows))
        count = max(1, min(c.calibration_tokens, windows * c.context) // (batch * c.context))
        sloped = min(count, c.slope_tokens // (batch * c.context))
        # Fisher and Taylor importance are made of gradients: they need at least one batch with them.
        return batch, count, max(1, sloped) if c.criterion in ("fisher", "taylor") else sloped

    @property
    def calibration_spent(self) -> Spent:
        """What calibration costs, also where its result was kept from another run."""
        from rankitect.contracts import Spent
        from rankitect.models.backbone import largest
        from rankitect.training.spending import training_flops

        if self._config.backbone == SCRATCH:
            return Spent()
        (batch, count, sloped), context, space = self._calibration(), self._config.context, self._parts.graph_space
        forward = space.cost(largest(space), "flops", B=1, T=context, P=0)
        trained = sloped * batch * context
        flops = training_flops(forward, trained, context)
        return Spent(train_tokens=trained, eval_tokens=count * batch * context, train_flops=flops)

    def _gather(self) -> Statistics:
        from rankitect.metrics.losses import sampled_cross_entropy
        from rankitect.models.backbone import largest
        from rankitect.models.importance import gather

        whole, (batch, count, sloped) = largest(self._parts.graph_space), self._calibration()
        plain = placement().place(self._plain)
        with placement().computing():
            statistics = gather(plain, whole, self._batches(batch, count))
        if sloped:
            loss = sampled_cross_entropy(self._parts.config.seed)
            with placement().computing():
                with_slopes = gather(plain, whole, self._batches(batch, sloped), loss)
            statistics.slopes = with_slopes.slopes
            statistics.fisher, statistics.taylor = with_slopes.fisher, with_slopes.taylor
        plain.to("cpu")  # where it is ranked; what takes its place on the device is sorted
        return statistics

    def _batches(self, batch: int, steps: int) -> Iterator[torch.Tensor]:
        """Batches of training text, as long as the user does not ask to stop.

        Raises:
            StopRequested: The user asked to stop. Nothing is kept of a part of a calibration.
        """
        for ids in self._data.batches("train", batch=batch, steps=steps):
            if self._parts.stop():
                raise StopRequested
            yield placement().move(ids)

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone as a supernet: sorted by importance, with refits. What it is made of is let go of."""
        from rankitect.models.backbone import Backbone, rank

        statistics = self.statistics
        orders = rank(self.checkpoint.config, self._plain, statistics, self._config.criterion)
        gram = statistics.gram if self._config.refit else None
        backbone = Backbone(
            self.checkpoint, self._parts.graph_space, orders, gram, statistics.influence, placement().device
        )
        placement().place(backbone.supernet)
        del self._plain  # its fingerprint was taken for the statistics
        self.checkpoint.let_go()
        statistics.gram.clear()  # refits have their own, in the backbone's order
        give_back_memory()
        return backbone

    def bit_divergences(
        self, check: Callable[[], None], progress: Callable[[int, int, str], None]
    ) -> dict[str, list[float]]:
        """How far the backbone's next-token distributions move at each value of each choice of bits, nats a token; from
        the cache where they were measured before.

        Args:
            check: Called between measurements; raises to stop.
            progress: Called with (done, total, note) between choices.
        """
        from rankitect.data.assets import cache_root
        from rankitect.data.kept import keep_record, kept_record
        from rankitect.tasks.language.bits_prior import bit_choices, divergences

        space, context = self._parts.graph_space, self._config.context
        choices, order = bit_choices(space), self._config.criterion  # whose order decides on the last digits
        name = _key([*self._calibrated, order, space.to_json(), self._divergence_tokens, "activations in floats"])
        path = cache_root() / "statistics" / f"bits-{name}.json"
        known = kept_record(path)
        if known is not None and list(known) == choices:
            return {choice: [float(v) for v in values] for choice, values in known.items()}
        self._parts.say(f"Divergence at fewer bits: {len(choices)} choices, {self._divergence_tokens} tokens each")
        batch = self._divergence_tokens // context
        ids = placement().move(self._data.batch_at("train", 0, batch=batch, context=context))[:, :-1]
        with placement().computing():
            moved = divergences(self.backbone.supernet, self.backbone.largest, ids, choices, check, progress)
        keep_record(path, moved)
        return moved

    @property
    def _divergence_tokens(self) -> int:
        from rankitect.tasks.language.bits_prior import TOKENS

        context = self._config.context
        windows = self._data.require("train", 1, context).windows(context)
        return context * max(1, min(TOKENS // context, windows))

    @property
    def divergences_spent(self) -> Spent:
        """What measuring these divergences costs, also where they were measured in another run."""
        from rankitect.contracts import Spent
        from rankitect.tasks.language.bits_prior import bit_choices

        space = self._parts.graph_space
        measured = sum(len(space.choices[path].values) - 1 for path in bit_choices(space))
        return Spent(eval_tokens=(1 + measured) * self._divergence_tokens)

    @property
    def teacher_fingerprint(self) -> str:
        """A hash of the backbone as the teacher of a distillation: in its order of importance."""
        return hashlib.sha256(self.fingerprint.encode()).hexdigest()

    @property
    def teacher(self) -> nn.Module:
        """The whole backbone, as the teacher of a distillation."""
        return self.backbone.supernet.activate(self.backbone.largest)

    def distillation(self, config: DistilConfig, split: str, teacher: nn.Module | None = None) -> Distillation:
        """Batches and loss of a distillation, from the whole backbone if no other teacher is given."""
        from rankitect.training.distill import Distillation

        own = self.teacher_fingerprint if teacher is None else None
        seed, teacher = self._parts.config.seed, teacher or self.teacher
        return Distillation(teacher, self._data, config, seed=seed, fingerprint=own, split=split)


class PrunedBackbone(SharedWeights):
    """Base of a task whose candidates are pruned from a pretrained model: what it tells of that model.

    Attributes:
        config: Names the model.
        checkpoint: The model as it was read.
    """

    config: BackboneConfig
    checkpoint: DecoderCheckpoint
    _pretrained: Pretrained
    _parts: Parts

    @property
    def statistics(self) -> Statistics:
        """Calibration statistics of the backbone."""
        return self._pretrained.statistics

    @property
    def backbone(self) -> Backbone:
        """The backbone as a supernet: sorted by importance, with refits."""
        return self._pretrained.backbone

    @property
    def upfront(self) -> Spent:
        """What every method owes before it starts: calibration."""
        return self._pretrained.calibration_spent

    def supernet(self, space: SearchSpace) -> Supernet:
        """A copy of the backbone's weights for a search to train; fresh weights where there is none."""
        from rankitect.models.supernet import Supernet

        if self.backbone_name is None:
            return placement().place(Supernet(space, self._parts.config.seed))
        return self.backbone.supernet.copy()

    @property
    def inherited(self) -> Supernet | None:
        """The weights that candidates inherit: of a search or else of a backbone; None without either."""
        if self._adopted is None and self.backbone_name is None:
            return None
        return self._adopted or self.backbone.supernet

    def initial(self, architecture: Architecture, seed: int) -> Standalone:
        """The model of an architecture as a recipe begins with it: inherited, or fresh where there is no backbone.

        Args:
            architecture: The architecture.
            seed: Of fresh weights.
        """
        from rankitect.models.supernet import build

        inherited = self.inherited
        model = build(self.space, architecture, seed) if inherited is None else inherited.extract(architecture)
        return placement().place(model)

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the backbone, and of all its pruned versions."""
        return self.checkpoint.tokenizer

    @property
    def backbone_name(self) -> str | None:
        """The pretrained model to inherit from and to learn from."""
        return None if self.config.backbone == SCRATCH else self.config.backbone

    @property
    def backbone_fingerprint(self) -> str:
        """SHA-256 of the backbone's weights and of what it computes of them."""
        return self._pretrained.teacher_fingerprint

    def distillation(
        self, config: DistilConfig, split: str = "train", teacher: nn.Module | None = None
    ) -> TextObjective[Any]:
        """Batches and loss of a distillation, from the backbone or from another teacher."""
        return self._pretrained.distillation(config, split, teacher)
