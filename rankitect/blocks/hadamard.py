"""Hadamard matrices of every size that models have, and their products as a few plain ones.

A Hadamard matrix has entries of 1 and -1 and orthogonal rows; divided by the root of its size it is orthogonal. They
are built by Sylvester's doubling, by Paley's two constructions over finite fields (J. Math. Phys. 12, 1933), and as
Kronecker products of these. That gives every multiple of 64 up to 2,688, and most multiples of 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product

import torch
import torch.nn.functional as F

from rankitect.errors import SpaceError
from rankitect.graph import Call, Expr
from rankitect.space.names import shown

__all__ = [
    "block_matrix",
    "check_flag",
    "check_size",
    "deployed_turn",
    "hadamard",
    "hadamard_block",
    "hadamard_factors",
    "turned",
    "turning_flops",
]

LARGEST = 2**16
"""Sizes up to which matrices are built."""


def hadamard(n: int) -> torch.Tensor:
    """An orthogonal matrix [n, n] float64 whose entries are all 1 / sqrt(n) in size.

    Raises:
        SpaceError: None is known of this size.

    >>> (hadamard(12) @ hadamard(12).T).diag().sum().round().item()
    12.0
    """
    built = _built(check_size(n))
    if built is None:
        raise SpaceError(
            f"no Hadamard matrix of {n} rows can be built; the largest that divides it has {hadamard_block(n)}"
        )
    return built.double() / n**0.5


def check_size(n: object) -> int:
    """A size of which there may be a matrix.

    Raises:
        SpaceError: It is no whole number from 1 to `LARGEST`.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= LARGEST:
        raise SpaceError(f"a rotation has from 1 to {LARGEST:,} channels, not {shown(n)}")
    return n


@lru_cache(maxsize=256)
def hadamard_block(n: int, most: int = 0) -> int:
    """The largest divisor of a size of which there is a Hadamard matrix: blocks of it turn all channels.

    Args:
        n: The size.
        most: The largest divisor that is wanted; 0 for any.

    >>> hadamard_block(1536), hadamard_block(1536, 100)
    (1536, 96)
    """
    return next(m for m in range(min(n, most or n), 0, -1) if n % m == 0 and _known(m))


@lru_cache(maxsize=256)
def hadamard_factors(n: int) -> tuple[int, ...]:
    """Sizes of Hadamard matrices whose Kronecker product is one of size n, with the fewest multiplications.

    Raises:
        SpaceError: None is known of this size.

    >>> hadamard_factors(1536)
    (48, 32)
    """
    if not _known(check_size(n)):
        hadamard(n)
    pairs = [(a, n // a) for a in range(n, 1, -1) if n % a == 0 and 1 < n // a <= a and _known(a) and _known(n // a)]
    # Two products need two transpositions, which cost more than they save where one matrix is small.
    best = min(pairs, key=lambda pair: sum(pair), default=(n,))
    return best if n > 128 and sum(best) < n else (n,)


def check_flag(block: str, name: str, value: object) -> bool:
    """A field that is either true or false.

    Raises:
        SpaceError: It is neither.
    """
    if not isinstance(value, bool):
        raise SpaceError(f"{block}: {name} is true or false, not {shown(value)}")
    return value


def turned(x: torch.Tensor, block: int) -> torch.Tensor:
    """The last axis, in blocks of a size, times the Hadamard matrix of that size: [..., n] -> [..., n].

    That is `block_matrix(block)` on each block, in one or two small products.

    Raises:
        SpaceError: The size does not divide the axis.
    """
    if x.shape[-1] % block:
        raise SpaceError(f"rotations of {block} channels do not divide {x.shape[-1]}: prune before you rotate")
    return turned_by(x, [factor(size, x) for size in hadamard_factors(block)])


def turned_by(x: torch.Tensor, factors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The product of each block of the last axis with the Kronecker product of one or two matrices.

    Args:
        x: [..., n].
        factors: The matrices, each transposed, as `factor` gives them.
    """
    last = factors[-1]
    if len(factors) == 1:
        return F.linear(x.unflatten(-1, (-1, len(last))), last).flatten(-2)
    first = factors[0]
    y = F.linear(x.unflatten(-1, (-1, len(first), len(last))), last).transpose(-1, -2)
    return F.linear(y, first).transpose(-1, -2).flatten(-3)


def deployed_turn(call: Call, x: torch.Tensor, block: int) -> torch.Tensor:
    """What `turned` gives, in a deployed program: plain products with constants."""
    sizes = hadamard_factors(block)
    return turned_by(x, [call.constant(("hadamard", size), partial(_constant, size)) for size in sizes])


def turning_flops(elements: Expr, block: int) -> Expr:
    """Floating-point operations of `turned` on so many elements."""
    return 2 * elements * sum(hadamard_factors(block))


def factor(size: int, like: torch.Tensor) -> torch.Tensor:
    """One of the factors, transposed, where and in the precision that a tensor is."""
    return _transposed(size).to(like)


def _constant(size: int) -> torch.Tensor:
    return _transposed(size).float()


@lru_cache(maxsize=64)
def _transposed(n: int) -> torch.Tensor:
    return hadamard(n).T.contiguous()


def block_matrix(block: int) -> torch.Tensor:
    """The matrix that `turned` multiplies each block with, [block, block] float64."""
    whole = torch.ones(1, 1, dtype=torch.float64)
    for size in hadamard_factors(block):
        whole = torch.kron(whole, hadamard(size))
    return whole


# --- construction -----------------------------------------------------------------------------------------------------
def _known(n: int) -> bool:
    return n in (1, 2) or (n % 4 == 0 and n <= LARGEST and _split(n) is not None)


@lru_cache(maxsize=512)
def _split(n: int) -> tuple[str, int] | None:
    """How a matrix of a size is built: by a construction, or as a product with one of the given size."""
    if n in (1, 2):
        return "sylvester", n
    if n % 4:
        return None
    if n & (n - 1) == 0:
        return "sylvester", n
    if (n - 1) % 4 == 3 and _prime_power(n - 1):
        return "first", n - 1
    half = n // 2 - 1
    if half % 4 == 1 and _prime_power(half):
        return "second", half
    for a in (m for m in range(2, n // 2 + 1) if n % m == 0 and (m == 2 or m % 4 == 0)):
        rest = n // a
        if (rest == 2 or rest % 4 == 0) and _split(a) is not None and _split(rest) is not None:
            return "product", a
    return None


def _built(n: int) -> torch.Tensor | None:
    way = _split(n) if 1 <= n <= LARGEST else None
    if way is None:
        return None
    kind, size = way
    if kind == "sylvester":
        whole = torch.ones(1, 1, dtype=torch.int8)
        while len(whole) < n:
            whole = torch.cat([torch.cat([whole, whole], 1), torch.cat([whole, -whole], 1)])
        return whole
    if kind == "product":
        one, other = _built(size), _built(n // size)
        assert one is not None
        assert other is not None
        return torch.kron(one, other)
    return _paley_first(size) if kind == "first" else _paley_second(size)


def _paley_first(q: int) -> torch.Tensor:
    """Of size q + 1, for a prime power q of the form 4k + 3."""
    characters = _characters(q)
    size = q + 1
    skew = torch.zeros(size, size, dtype=torch.int8)
    skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1, -1, characters
    return skew + torch.eye(size, dtype=torch.int8)


def _paley_second(q: int) -> torch.Tensor:
    """Of size 2 (q + 1), for a prime power q of the form 4k + 1."""
    size = q + 1
    conference = torch.zeros(size, size, dtype=torch.int8)
    conference[0, 1:], conference[1:, 0], conference[1:, 1:] = 1, 1, _characters(q)
    off = torch.tensor([[1, 1], [1, -1]], dtype=torch.int8)
    on = torch.tensor([[1, -1], [-1, -1]], dtype=torch.int8)
    return torch.kron(conference, off) + torch.kron(torch.eye(size, dtype=torch.int8), on)


def _characters(q: int) -> torch.Tensor:
    """Jacobsthal's matrix [q, q]: 1 where the difference of two elements of the field is a square, 0 where it is 0."""
    prime, degree = _prime_power(q) or (q, 1)
    elements = list(product(range(prime), repeat=degree))
    number = {element: i for i, element in enumerate(elements)}
    squares = {_times(a, a, prime) for a in elements}
    zero = elements[0]
    value = torch.tensor([0 if e == zero else 1 if e in squares else -1 for e in elements], dtype=torch.int8)
    digits = torch.tensor(elements)
    places = torch.tensor([number[tuple(int(i == j) for j in range(degree))] for i in range(degree)])
    difference = ((digits[:, None] - digits[None, :]) % prime * places).sum(-1)
    return value[difference]


def _times(a: tuple[int, ...], b: tuple[int, ...], prime: int) -> tuple[int, ...]:
    """The product of two elements of a field: polynomials modulo an irreducible one, highest power first."""
    degree = len(a)
    raw = [0] * (2 * degree - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            raw[i + j] = (raw[i + j] + x * y) % prime
    modulus = _irreducible(prime, degree)
    for i in range(degree - 1):
        lead = raw[i]
        for j, m in enumerate(modulus):
            raw[i + j] = (raw[i + j] - lead * m) % prime
    return tuple(raw[degree - 1 :])


@lru_cache(maxsize=64)
def _irreducible(prime: int, degree: int) -> tuple[int, ...]:
    """A polynomial with leading coefficient 1 that has no factors over the integers modulo a prime."""
    for rest in product(range(prime), repeat=degree):
        candidate = (1, *rest)
        divisors = ((1, *d) for size in range(1, degree // 2 + 1) for d in product(range(prime), repeat=size))
        if all(_remainder(candidate, divisor, prime) for divisor in divisors):
            return candidate
    raise AssertionError("there is an irreducible polynomial of every degree")


def _remainder(whole: tuple[int, ...], divisor: tuple[int, ...], prime: int) -> bool:
    """Whether anything is left of a division of polynomials with leading coefficient 1."""
    left = list(whole)
    for i in range(len(whole) - len(divisor) + 1):
        lead = left[i]
        for j, d in enumerate(divisor):
            left[i + j] = (left[i + j] - lead * d) % prime
    return any(left)


@lru_cache(maxsize=512)
def _prime_power(q: int) -> tuple[int, int] | None:
    """The prime and the exponent of a prime power; None for another number."""
    if q < 2:
        return None
    prime = next((p for p in range(2, int(q**0.5) + 1) if q % p == 0), q)
    degree, rest = 0, q
    while rest % prime == 0:
        rest, degree = rest // prime, degree + 1
    return (prime, degree) if rest == 1 else None
