"""The configuration of a decoder whose layers differ in heads, feed-forward width and attention.

`block_configs` says it layer by layer, in the words of DeciLM (NVIDIA's Llama-Nemotron), whose readers find in it what
they look for: `attention.no_op`, `attention.n_heads_in_group`, `ffn.no_op`, `ffn.intermediate_size`.
"""

from typing import Any

from transformers import PretrainedConfig

__all__ = ["DeciLMConfig", "Part", "RankitectConfig"]


class Part(dict[str, Any]):
    """A mapping whose values are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class RankitectConfig(PretrainedConfig):
    """Sizes of the whole model, and of each layer.

    Args:
        vocab_size: Tokens.
        hidden_size: Width of the residual stream.
        num_attention_heads: The most query heads that a layer has.
        head_dim: Size of a head.
        rms_norm_eps: Epsilon of norms.
        max_position_embeddings: The longest text that the model was made for, tokens.
        block_configs: For each layer its attention (`no_op`, `num_key_value_heads`, `n_heads_in_group`, `window`,
            `rotary`: the number of an entry of `rotary`, or null) and its `ffn` (`intermediate_size`).
        rotary: Ways of turning heads by positions: `frequencies` and the `scale` of cosines and sines; or, where
            frequencies depend on the length of the text, `base`, `factor` and `original`.
        blocks: What blocks compute, where it is not what a Llama's do.
        **others: As for every configuration.
    """

    model_type = "rankitect"

    def __init__(
        self,
        vocab_size: int = 256,
        hidden_size: int = 64,
        num_attention_heads: int = 1,
        head_dim: int = 64,
        rms_norm_eps: float = 1e-5,
        max_position_embeddings: int = 2048,
        block_configs: list[dict[str, Any]] | None = None,
        rotary: list[dict[str, Any]] | None = None,
        blocks: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.head_dim = head_dim
        self.rms_norm_eps = rms_norm_eps
        self.max_position_embeddings = max_position_embeddings
        self.block_configs = [Part({name: Part(part) for name, part in one.items()}) for one in block_configs or []]
        self.num_hidden_layers = len(self.block_configs)
        self.rotary = rotary or []
        self.blocks = blocks or {}
        others.pop("num_hidden_layers", None)
        super().__init__(**others)


class DeciLMConfig(RankitectConfig):
    """The same under the name that vLLM and TensorRT-LLM know."""

    model_type = "nemotron-nas"

    def __init__(self, **keys: Any) -> None:  # a class without one is given another by transformers 5
        super().__init__(**keys)
