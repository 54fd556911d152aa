"""What a step costs while tables are chosen one by one: kept as a sum, so that a table is tried in the time of one.

The cost is what the step would gain without a table: half of that on about the slowest rank, half on the mean rank. On
the slowest rank alone, savings on other tables would not show.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from recd_dist.embedding.vocabulary.names import Send
from recd_dist.embedding.vocabulary.placement import TablePlace
from recd_dist.plan.cost import Call, StepWork, call_of, mean_ms, near_slowest_ms, no_work, round_ms, table_work
from recd_dist.plan.machines import Machine
from recd_dist.plan.step_rows import StepRows, TableUse

ROUNDS = 2
"""Collectives that a step waits for: vectors and gradients. Sizes and ids of the next batch travel while this one
computes; their bytes count even so, because they share the links."""


@dataclass(frozen=True)
class Alternative:
    """One alternative for a table.

    Attributes:
        send: what travels of the table.
        place: where the table lies.
    """

    send: Send
    place: TablePlace


class StepLedger:
    """The work of all tables that are chosen at present.

    Args:
        uses: all tables.
        step: rows and ids of one rank's batch.
        world_size: W, the number of ranks.
        machine: what a rank's device and links cost.
        dedup: True if batches travel through our exchange, False if through plain TorchRec.

    Attributes:
        uses: for each table how the model uses it.
        chosen: for each table that has been put in its alternative.
        total: the work of these tables.
    """

    def __init__(
        self, uses: Sequence[TableUse], step: StepRows, world_size: int, machine: Machine, *, dedup: bool = True
    ) -> None:
        self.uses, self.step, self.machine, self.dedup = {u.table: u for u in uses}, step, machine, dedup
        self.chosen: dict[str, Alternative] = {}
        self.world_size, self.total = world_size, no_work(world_size)
        self._calls = Counter[Call]()
        self._works: dict[tuple[str, Send, int], tuple[TablePlace, StepWork]] = {}

    def put(self, table: str, alternative: Alternative) -> None:
        """Chooses an alternative for a table that has none.

        Args:
            table: name of the table.
            alternative: the alternative.
        """
        self.chosen[table] = alternative
        self.total = self.total + self.work(table, alternative)
        self._calls[self._call(table, alternative)] += 1

    def take_out(self, table: str) -> Alternative:
        """Takes a table out, and returns what was chosen for it.

        Args:
            table: name of the table.
        """
        alternative = self.chosen.pop(table)
        self.total = self.total - self.work(table, alternative)
        call = self._call(table, alternative)
        self._calls[call] -= 1
        if not self._calls[call]:
            del self._calls[call]
        return alternative

    def ms_with(self, table: str, alternative: Alternative) -> float:
        """Milliseconds of the step if a table that has no alternative yet had this one.

        Args:
            table: name of the table.
            alternative: the alternative.
        """
        return self._ms(self.total + self.work(table, alternative), [self._call(table, alternative)])

    def ms(self) -> float:
        """Milliseconds of the step with all tables that are chosen at present."""
        return self._ms(self.total, [])

    def table_ms(self, table: str, alternative: Alternative) -> float:
        """Milliseconds that a table adds to the step under an alternative, beside the other tables.

        Args:
            table: name of the table.
            alternative: the alternative.
        """
        before = self.take_out(table) if table in self.chosen else None
        added = self.ms_with(table, alternative) - self.ms()
        if before is not None:
            self.put(table, before)
        return added

    def work(self, table: str, alternative: Alternative) -> StepWork:
        """The work of a table under an alternative.

        Args:
            table: name of the table.
            alternative: the alternative.
        """
        key = table, alternative.send, id(alternative.place)
        if key not in self._works:
            use = replace(self.uses[table], send=alternative.send)
            work = table_work(use, alternative.place, self.step, self.world_size, self.machine, dedup=self.dedup)
            self._works[key] = alternative.place, work  # the place is kept, so that its id stays its own
        return self._works[key][1]

    def forget(self, table: str, *, but: Sequence[TablePlace]) -> None:
        """Forgets the work of a table's alternatives, which takes memory.

        Args:
            table: name of the table.
            but: places of which the work is kept.
        """
        kept = {id(place) for place in but}
        for key in [key for key in self._works if key[0] == table and key[2] not in kept]:
            del self._works[key]

    def _call(self, table: str, alternative: Alternative) -> Call:
        use = replace(self.uses[table], send=alternative.send)
        return call_of(use, alternative.place, self.dedup, self.world_size)

    def _ms(self, total: StepWork, more_calls: Sequence[Call]) -> float:
        calls = {*self._calls, *more_calls}
        between = (near_slowest_ms(total, self.machine) + mean_ms(total, self.machine)) / 2
        rounds = ROUNDS * round_ms(calls, self.world_size, self.machine, dedup=self.dedup)
        return between + rounds + len(calls) * self.machine.call_ms
