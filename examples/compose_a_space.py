"""Compose a search space from blocks, draw architectures from it, and read what they cost without building a model."""

import numpy as np

from rankitect.blocks import GQA, Embed, Norm, Rope, SwiGLU, TiedHead
from rankitect.graph import B, Graph, SearchSpace, T, Zero


def small_llama(vocab: int = 4096, head: int = 32) -> SearchSpace:
    """A Llama whose width, depth, heads, feed-forward widths and attention are open."""
    g = Graph("small_llama")
    width, depth = g.choice("width", [256, 192, 128]), g.choice("depth", range(8, 3, -1))
    ids = g.input("ids", B, T, dtype="int")
    rope = Rope(head // 2)(ids, name="rope")

    def layer(i, x):
        kv, group, ffn = g.choice("kv", [4, 2, 1]), g.choice("group", [2, 1]), g.choice("ffn", [768, 512, 256])
        kinds = {"full": GQA(kv, group, head), "window": GQA(kv, group, head, 64), "skip": Zero()}
        x = x + g.oneof("attn", kinds, Norm()(x, name="norm1"), rope, share=True)
        return x + SwiGLU(ffn)(Norm()(x, name="norm2"), name="mlp")

    x = g.repeat("layers", depth, layer, Embed(vocab, width)(ids, name="embed"))
    g.out = TiedHead(vocab)(Norm()(x, name="norm"), name="head", weights="embed")
    return SearchSpace(g, defaults={"T": 256})


def main() -> None:
    """Print the size of the space, one architecture of it, and how costs are distributed."""
    space = small_llama()
    print(space.size())
    small = space.sample(0, params=(2e6, 3e6))  # uniform among the distinct architectures of that size
    print(small.fingerprint[:8], f"{len(small.choices)} choices, {space.cost(small, 'params'):,.0f} parameters")

    columns = space.encode(space.sample_many(2000, rng=0))  # many architectures at once
    for cost, unit in (("params", "M parameters"), ("flops", "MFLOPs"), ("cache_bytes", "MB of cache")):
        low, middle, high = np.quantile(space.cost(columns, cost, B=1) / 1e6, [0.1, 0.5, 0.9])
        print(f"{middle:8.2f} {unit} (80% of the space: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
