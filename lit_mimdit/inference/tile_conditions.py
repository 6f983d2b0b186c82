"""Keeps what a network knows of the tiles of a large image, as far as the memory allows."""

from collections.abc import Callable

from lit_mimdit.inference.guidance import Conditioned
from lit_mimdit.models.decisions import Decisions, join_rows


class TileConditions:
    """Conditions of groups of tiles, by the number of the group.

    A condition depends neither on time nor on the noisy latent, so it is the same at every step.
    Groups that fit into the limit are looked at once, the others again at every step.

    Args:
        look: gives the condition of a group.
        limit: of all kept conditions together, bytes.
    """

    def __init__(self, look: Callable[[int], Conditioned], limit: float) -> None:
        self.look = look
        self.limit = limit
        self.kept: dict[int, Conditioned] = {}
        self.decisions: dict[int, Decisions] = {}

    def of(self, group: int) -> Conditioned:
        """Returns the condition of a group, kept or looked at now."""
        if group in self.kept:
            return self.kept[group]
        condition = self.look(group)
        self.decisions[group] = condition.routing
        if condition.size + sum(other.size for other in self.kept.values()) <= self.limit:
            self.kept[group] = condition
        return condition

    def routing(self) -> Decisions:
        """Returns the routers' decisions about all tiles, a row a tile, in the order of the
        groups.
        """
        return join_rows([self.decisions[group] for group in sorted(self.decisions)])
