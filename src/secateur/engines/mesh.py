"""How the ranks of a run stand: replicas of shards of slices.

`dp` ranks hold the same and train on other data (DDP, or the replicas of hybrid sharding), `fsdp`
ranks share parameters, gradients and optimizer state by rows, `tp` ranks share each layer. The
innermost, `tp`, are neighbours; then `fsdp`, then `dp`.
"""

from __future__ import annotations

from dataclasses import dataclass

NAMES = ("dp", "fsdp", "tp")
ALSO = {"ddp": "dp"}
"""Other words for the same."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """How many ranks stand along each mesh dim.

    >>> Mesh(dp=4, tp=2).ranks
    8
    """

    dp: int = 1
    fsdp: int = 1
    tp: int = 1

    def __post_init__(self) -> None:
        for name in NAMES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least one rank")

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.dp * self.fsdp * self.tp

    @property
    def batches(self) -> int:
        """Ranks that train on data of their own."""
        return self.dp * self.fsdp

    def stride(self, name: str) -> int:
        """Distance between two neighbours along a mesh dim, or along "batches", in ranks."""
        if name == "batches":
            return self.tp
        inner = NAMES[NAMES.index(name) + 1 :]
        product = 1
        for each in inner:
            product *= getattr(self, each)
        return product

    def place(self, rank: int) -> tuple[int, int, int]:
        """Where a rank stands along dp, fsdp and tp.

        >>> Mesh(dp=2, tp=2).place(3)
        (1, 0, 1)
        """
        return (
            rank // (self.fsdp * self.tp),
            rank // self.tp % self.fsdp,
            rank % self.tp,
        )

    def __str__(self) -> str:
        said = [f"{name}={getattr(self, name)}" for name in NAMES if getattr(self, name) > 1]
        return ",".join(said) or "dp=1"


def parse_mesh(text: str, *, ranks: int | None = None) -> Mesh:
    """A mesh from "dp=4,tp=2"; a name alone takes the ranks that are left.

    >>> parse_mesh("fsdp,tp=2", ranks=8)
    Mesh(dp=1, fsdp=4, tp=2)

    Raises: ValueError for another word, or a product that is not `ranks`.
    """
    sizes: dict[str, int] = {}
    rest: list[str] = []
    for part in text.split(","):
        word, _, size = part.strip().partition("=")
        name = ALSO.get(word, word)
        if name not in NAMES or name in sizes or name in rest or (size and not size.isdigit()):
            raise ValueError(
                f"--parallel {text!r}: write sizes of {', '.join(NAMES)}, such as dp=4,tp=2"
            )
        if size:
            sizes[name] = int(size)
        else:
            rest.append(name)
    if rest:
        sizes[rest[0]] = max(1, (ranks or 1) // Mesh(**sizes).ranks)
        sizes.update(dict.fromkeys(rest[1:], 1))
    mesh = Mesh(**sizes)
    if ranks is not None and mesh.ranks != ranks:
        raise ValueError(
            f"--parallel {text!r} places {mesh.ranks} ranks and there are {ranks}: "
            f"make the product of the sizes {ranks}"
        )
    return mesh
