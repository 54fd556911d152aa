"""Several searches for the places of all tables, and the choice among their plans.

For each way in which batches may travel there is a search with many copies and one with few. For the faster way there
is one more, which begins with the places of expanded batches. Of plans that take about as long, the one is taken that
sends least to other hosts. It never sends more there than expanded batches would: with their places it sends less, or
as much where nothing is exchanged but gradients of copies.
"""

import math
from collections.abc import Mapping, Sequence

from recd_dist.embedding.vocabulary.names import Send
from recd_dist.embedding.vocabulary.placement import Placement
from recd_dist.plan.machines import Machine
from recd_dist.plan.search_places import MAX_COPIED, SearchPlaces
from recd_dist.plan.step_rows import StepRows, TableUse
from recd_dist.plan.world import World

FEW_COPIED = 2**18
"""The same as MAX_COPIED (1 MiB) in a second search: where tables are placed one by one, none would begin an exchange
that only several repay."""

MARGIN = 0.9
"""Of plans of which the fastest takes more than this share of their time, the one that sends least to other hosts is
taken: the costs are not exact, and the links are shared."""


def choose_places(
    ways: Sequence[Sequence[TableUse]],
    world: World,
    machine: Machine,
    step: StepRows,
    *,
    optimizer: str = "rowwise_adagrad",
    pinned: Mapping[str, Send] | None = None,
    dedup: bool = True,
    expanded: SearchPlaces | None = None,
) -> SearchPlaces:
    """Searches several times, and returns the best search.

    Args:
        ways: the tables, once for each way in which batches may travel.
        world: the ranks.
        machine: memory and speed of a rank, and its links.
        step: rows and ids of one rank's batch.
        optimizer: name of the tables' optimizer, whose states take memory.
        pinned: what travels of the tables for which the config says so.
        dedup: True if batches travel through our exchange, False if through plain TorchRec.
        expanded: the search for expanded batches, more than which the mean rank shall not send to other hosts. Its
            places are the start of one more search.

    Raises:
        ConfigError: a table fits nowhere; the message says how many ranks would do.
    """
    searches = []
    between = [u for u in ways[0] if FEW_COPIED < u.num_embeddings * u.dim <= MAX_COPIED]
    limits = (MAX_COPIED, FEW_COPIED) if between else (MAX_COPIED,)  # else both searches would be the same
    for uses in ways:
        for max_copied in limits:
            search = SearchPlaces(
                uses, world, machine, step, optimizer=optimizer, pinned=pinned, dedup=dedup, max_copied=max_copied
            )
            search.run()
            searches.append(search)
    most = math.inf
    if expanded:
        fastest = min(searches, key=lambda search: search.ledger.ms())
        search = SearchPlaces(fastest.uses, world, machine, step, optimizer=optimizer, pinned=pinned)
        search.run_from(_possible_places(expanded, fastest), expanded.bytes_to_other_hosts())
        searches.append(search)
        most = max(expanded.bytes_to_other_hosts(), min(search.bytes_to_other_hosts() for search in searches))
    searches = [search for search in searches if search.bytes_to_other_hosts() <= most]
    fastest_ms = min(search.ledger.ms() for search in searches)
    near = [search for search in searches if search.ledger.ms() * MARGIN <= fastest_ms]
    return min(near, key=lambda search: (search.bytes_to_other_hosts(), search.ledger.ms()))


def _possible_places(expanded: SearchPlaces, ours: SearchPlaces) -> Placement:
    """The places of expanded batches; those of our search for un-pooled tables that lie on all ranks there."""
    places = {t: a.place for t, a in expanded.ledger.chosen.items()}
    return {
        u.table: ours.ledger.chosen[u.table].place if u.is_sequence and not places[u.table].shards else places[u.table]
        for u in ours.uses
    }
