"""What answers cost, and the limit that is never passed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from triptych.errors import InputError

_MILLION = 1_000_000


class Tokens(NamedTuple):
    """Tokens of requests and of answers."""

    input: int = 0
    output: int = 0

    def plus(self, other: Tokens) -> Tokens:
        """The sum."""
        return Tokens(self.input + other.input, self.output + other.output)

    def minus(self, other: Tokens) -> Tokens:
        """The difference."""
        return Tokens(self.input - other.input, self.output - other.output)

    @property
    def total(self) -> int:
        """Both."""
        return self.input + self.output


NO_TOKENS = Tokens()


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a million tokens, in any one currency."""

    input: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        if self.input < 0 or self.output < 0:
            raise InputError(f"prices: got {self.input} and {self.output}; expected 0 or more")

    def of(self, tokens: Tokens) -> float:
        """What tokens cost."""
        return (self.input * tokens.input + self.output * tokens.output) / _MILLION


@dataclass(slots=True)
class Budget:
    """Counts what was spent, with what is on its way at its highest price.

    A request is made only if it fits even at its highest price, together with those on their way; one that does not
    waits until one of those has come, and is given up when none is left.

    Attributes:
        prices: Of the tokens.
        money: Most that may be spent; None: any.
        tokens: Most tokens; None: any.
        spent: Tokens that the server counted (or, where it did not, their upper bounds).
        lost: Upper bounds of what answers may have cost that never arrived, or arrived broken.
        on_way: Upper bounds of the requests on their way.
    """

    prices: Prices = field(default_factory=Prices)
    money: float | None = None
    tokens: int | None = None
    spent: Tokens = NO_TOKENS
    lost: Tokens = NO_TOKENS
    on_way: Tokens = NO_TOKENS
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        if self.money is not None and not (self.prices.input or self.prices.output):
            raise InputError(
                "budget: got a limit in money without prices; expected the prices of a million tokens"
            )
        for name, value in (("money", self.money), ("tokens", self.tokens)):
            if value is not None and value <= 0:
                raise InputError(f"budget: got {name} {value}; expected more than 0")

    @property
    def cost(self) -> float:
        """What was spent, with what may have been."""
        return self.prices.of(self.spent.plus(self.lost))

    async def reserve(self, most: Tokens) -> bool:
        """Waits until a request fits, and counts it as on its way.

        Returns:
            False if it does not fit and nothing is on its way that could leave room.
        """
        async with self._changed:
            while not self._fits(most):
                if not self.on_way.total:
                    return False
                await self._changed.wait()
            self.on_way = self.on_way.plus(most)
        return True

    async def settle(self, most: Tokens, spent: Tokens = NO_TOKENS, lost: Tokens = NO_TOKENS) -> None:
        """Ends what `reserve` began: with what the answer cost, what may have been lost, or nothing."""
        async with self._changed:
            self.on_way = self.on_way.minus(most)
            self.spent = self.spent.plus(spent)
            self.lost = self.lost.plus(lost)
            self._changed.notify_all()

    def _fits(self, most: Tokens) -> bool:
        total = self.spent.plus(self.lost).plus(self.on_way).plus(most)
        return (self.tokens is None or total.total <= self.tokens) and (
            self.money is None or self.prices.of(total) <= self.money
        )
