"""A workload from a shape: a decoder of any size, of which nothing is ever made.

Layers of attention (grouped queries, or DeepSeek's latent attention) and a gated MLP or experts.
Tensor parallelism is Megatron's: heads and inner widths are split, norms, routers and embeddings
are not, and a layer adds up activations twice in each direction.
Source: Shoeybi et al. 2019, section 3, arXiv 1909.08053.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.engines.simulator.workload import FLOAT, Unit, Weight, Workload


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention: ranks of the compressed queries and of keys and values, width
    of a head without and with position, width of its value. Source: DeepSeek-V2, arXiv 2405.04434,
    section 2.1."""

    query_rank: int
    key_value_rank: int
    plain: int
    rotary: int
    value: int


@dataclass(frozen=True, slots=True)
class Experts:
    """routed experts of `width`, of which a token sees `active`; shared ones that all tokens see;
    the first `dense_layers` have an ordinary MLP."""

    routed: int
    active: int
    width: int
    shared: int = 0
    dense_layers: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a decoder, in the words of its config; `inner` is the width of the MLP."""

    name: str
    layers: int
    width: int
    heads: int
    key_value_heads: int
    head: int
    inner: int
    vocabulary: int
    tied: bool = False
    latent: Latent | None = None
    experts: Experts | None = None

    def workload(self, *, sequences: int = 1, length: int = 4096) -> Workload:
        """The model at a batch of so many sequences a rank."""
        tokens = sequences * length
        experts = self.experts
        dense = self.layers if experts is None else experts.dense_layers
        units = []
        if dense:
            units.append((self._layer("layer", tokens, length, None), dense))
        if experts is not None:
            units.append(
                (self._layer("expert layer", tokens, length, experts), self.layers - dense)
            )
        units.append((self._ends(tokens), 1))
        return Workload(self.name, tuple(units), samples=tokens, sample="tokens")

    def _layer(self, name: str, tokens: int, length: int, experts: Experts | None) -> Unit:
        attention, keys = self._attention()
        mlp = self._mlp(self.inner, 1) if experts is None else self._experts(experts)
        norms = (Weight(self.width, count=2),)
        seen = self.inner if experts is None else (experts.active + experts.shared) * experts.width
        used = _elements(attention) + 3 * self.width * seen
        router = 0 if experts is None else experts.routed * self.width
        split = tokens * (used + length * keys)
        # a gated MLP keeps its gate, up, activated gate and product; attention q, k, v, its result
        kept = tokens * (4 * seen + self._attention_kept())
        copies = 0 if experts is None else 2 * experts.active * tokens * self.width
        return Unit(
            name,
            (*attention, *mlp, *norms),
            macs=split + tokens * router,
            tp_macs=split,
            kept_elements=kept + 6 * tokens * self.width + copies,
            tp_kept_elements=kept,
            kept_bytes=(self.heads + 2) * tokens * FLOAT,
            tp_kept_bytes=self.heads * tokens * FLOAT,
            forward_reduced=(tokens * self.width,) * 2,
            backward_reduced=(tokens * self.width,) * 2,
            entry_elements=tokens * self.width,
        )

    def _attention(self) -> tuple[tuple[Weight, ...], int]:
        """Its weights, and multiply-accumulates for each pair of tokens."""
        if self.latent is None:
            queries, keys = self.heads * self.head, self.key_value_heads * self.head
            return (
                Weight(queries, self.width, split="rows"),
                Weight(keys, self.width, count=2, split="rows"),
                Weight(self.width, queries, split="columns"),
            ), 2 * queries
        own = self.latent
        query = own.plain + own.rotary
        return (
            Weight(own.query_rank, self.width),
            Weight(own.query_rank),
            Weight(self.heads * query, own.query_rank, split="rows"),
            Weight(own.key_value_rank + own.rotary, self.width),
            Weight(own.key_value_rank),
            Weight(self.heads * (own.plain + own.value), own.key_value_rank, split="rows"),
            Weight(self.width, self.heads * own.value, split="columns"),
        ), self.heads * (query + own.value)

    def _attention_kept(self) -> int:
        """Elements for each token: queries, keys and values as attention reads them, its result."""
        if self.latent is None:
            return 2 * (self.heads + self.key_value_heads) * self.head
        own = self.latent
        return self.heads * (2 * (own.plain + own.rotary) + 2 * own.value)

    def _mlp(self, inner: int, count: int) -> tuple[Weight, ...]:
        return (
            Weight(inner, self.width, count=2 * count, split="rows"),
            Weight(self.width, inner, count=count, split="columns"),
        )

    def _experts(self, experts: Experts) -> tuple[Weight, ...]:
        count = experts.routed + experts.shared
        return (Weight(experts.routed, self.width), *self._mlp(experts.width, count))

    def _ends(self, tokens: int) -> Unit:
        """Embedding, last norm and head; the loss keeps the logarithms of all probabilities."""
        table = Weight(self.vocabulary, self.width, count=1 if self.tied else 2)
        return Unit(
            "embedding and head",
            (table, Weight(self.width)),
            macs=tokens * self.vocabulary * self.width,
            kept_elements=3 * tokens * self.width,
            kept_bytes=tokens * (self.vocabulary * FLOAT + FLOAT + 8),
            entry_elements=tokens * self.width,
        )


def _elements(weights: tuple[Weight, ...]) -> int:
    return sum(weight.elements for weight in weights)
