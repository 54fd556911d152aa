"""Compiled loops over the ids of mapped tables: distinct ids of a batch, and the rows that ids get and lose.

::

    nodes     0 ............ R    R ................. R + W       R rows, W places for ids that wait
    index     hash of an id -> its node
    lists     newest <-> ... <-> oldest                           one of rows and one of waiting ids for each zone

A node without an id was never seen (``seen`` is -1). After ``max_age`` an id has lost its row, though it still stands
there until another id takes the row; if it is seen again meanwhile, the index leads to its newer node.
"""

from typing import NamedTuple

from recd_dist.embedding.lookup.row_loops import i64, u
from recd_dist.table.column import Array
from recd_dist.table.loops import jit, splitmix64_one


class Nodes(NamedTuple):
    """The rows and waiting ids of this rank's zones of one table.

    Attributes:
        ids: int64 [R + W], the id of each node.
        seen: int64 [R + W], the step at which it was last seen; -1 where there is none.
        counts: int64 [W], lookups of each waiting id.
        newer, older: int32 [R + W], neighbours in the list of the node; -1 at its ends.
        ends: int32 [2 * zones, 2], newest and oldest node of each list: those of rows, then those of waiting ids.
        slots: int32 [a power of two, at least 2 * (R + W)], the index: nodes by the hash of their ids, or -1.
        starts: int64 [zones + 1], the first node of each zone; with R added, its first waiting node.
        used: int64 [zones], rows of each zone that have been handed out, in the order of their numbers.
        zones: int64 [2], number of the first zone of this rank, and number of zones of the table.
    """

    ids: Array
    seen: Array
    counts: Array
    newer: Array
    older: Array
    ends: Array
    slots: Array
    starts: Array
    used: Array
    zones: Array


@jit
def zone_of(number: int, num_zones: int) -> int:
    """The zone of an id: the upper half of its hash, while ``find_slot`` takes the lower bits."""
    upper = splitmix64_one(u(number)) >> u(32)
    return i64((upper * u(num_zones)) >> u(32))


@jit
def find_zones(ids: Array, num_zones: int, zones: Array) -> None:
    """Writes the zone of each id, int64 [n]."""
    for i in range(len(ids)):
        zones[i] = zone_of(ids[i], num_zones)


@jit
def find_slot(ids: Array, index: Array, number: int) -> int:
    """The slot of an id in an index of nodes, or the empty one where it belongs."""
    mask = u(len(index) - 1)
    slot = splitmix64_one(u(number)) & mask
    while index[slot] >= 0 and ids[index[slot]] != number:
        slot = (slot + u(1)) & mask
    return i64(slot)


@jit
def remove(nodes: Nodes, node: int) -> None:
    """Takes a node out of the index, if the index leads to it; what stands behind it moves up."""
    index, mask = nodes.slots, len(nodes.slots) - 1
    hole = find_slot(nodes.ids, index, nodes.ids[node])
    if index[hole] != node:
        return
    slot = (hole + 1) & mask
    while index[slot] >= 0:
        home = i64(splitmix64_one(u(nodes.ids[index[slot]])) & u(mask))
        if ((slot - home) & mask) >= ((slot - hole) & mask):
            index[hole] = index[slot]
            hole = slot
        slot = (slot + 1) & mask
    index[hole] = -1


@jit
def unlink(nodes: Nodes, of: int, node: int) -> None:
    """Takes a node out of list number ``of``."""
    newer, older = nodes.newer[node], nodes.older[node]
    if newer >= 0:
        nodes.older[newer] = older
    else:
        nodes.ends[of, 0] = older
    if older >= 0:
        nodes.newer[older] = newer
    else:
        nodes.ends[of, 1] = newer


@jit
def link(nodes: Nodes, of: int, node: int, newest: bool) -> None:
    """Puts a node at the newest or at the oldest end of list number ``of``."""
    end = 0 if newest else 1
    neighbour = nodes.ends[of, end]
    nodes.newer[node] = -1 if newest else neighbour
    nodes.older[node] = neighbour if newest else -1
    nodes.ends[of, end] = node
    if neighbour < 0:
        nodes.ends[of, 1 - end] = node
    elif newest:
        nodes.newer[neighbour] = node
    else:
        nodes.older[neighbour] = node


@jit
def assign(nodes: Nodes, node: int, number: int, step: int) -> None:
    """Gives a node to an id; the index then leads there."""
    slot = find_slot(nodes.ids, nodes.slots, number)
    nodes.ids[node] = number
    nodes.seen[node] = step
    nodes.slots[slot] = node


@jit
def restore(nodes: Nodes, in_order: Array) -> None:
    """Fills index and lists, which are empty, from ids and steps.

    Args:
        nodes: rows and waiting ids.
        in_order: int64, the nodes that have ids, by step and then by id.
    """
    num_zones, num_rows = len(nodes.used), nodes.starts[-1]
    if len(nodes.counts):
        for zone in range(num_zones):
            for node in range(num_rows + nodes.starts[zone], num_rows + nodes.starts[zone + 1]):
                if nodes.seen[node] < 0:
                    link(nodes, num_zones + zone, node, True)
    for node in in_order:
        assign(nodes, node, nodes.ids[node], nodes.seen[node])
        zone = zone_of(nodes.ids[node], nodes.zones[1]) - nodes.zones[0]
        if node < num_rows:
            nodes.used[zone] += 1
            link(nodes, zone, node, True)
        else:
            link(nodes, num_zones + zone, node, True)


@jit
def touch(nodes: Nodes, ids: Array, step: int, max_age: int, rows: Array) -> None:
    """Finds the nodes of some ids and takes them out of their lists, so that no id of this step loses its row in it.

    Args:
        nodes: rows and waiting ids.
        ids: int64 [n], distinct.
        step: the number of the step.
        max_age: steps after which an id is forgotten; -1 for never.
        rows: int64 [n], receives the node of each id, -1 where it has none.
    """
    num_zones, num_rows = len(nodes.used), nodes.starts[-1]
    for i in range(len(ids)):
        node = nodes.slots[find_slot(nodes.ids, nodes.slots, ids[i])]
        rows[i] = node
        if node < 0:
            continue
        zone = zone_of(ids[i], nodes.zones[1]) - nodes.zones[0]
        is_forgotten = max_age >= 0 and step - nodes.seen[node] > max_age
        if node >= num_rows:
            if is_forgotten:
                nodes.counts[node - num_rows] = 0
            unlink(nodes, num_zones + zone, node)
            nodes.seen[node] = step
        elif is_forgotten:
            rows[i] = -1
        else:
            unlink(nodes, zone, node)
            nodes.seen[node] = step


@jit
def take_row(nodes: Nodes, zone: int, step: int, evict: bool, max_age: int) -> int:
    """A row for an id: one that was never handed out, or the one that was not seen for longest; -1 where none is free.

    Args:
        nodes: rows and waiting ids.
        zone: zone of the id, counted from this rank's first one.
        step: the number of the step.
        evict: take the row that was not seen for longest, however short that is.
        max_age: else, take a row that was not seen for more than so many steps; -1 for never.
    """
    if nodes.used[zone] < nodes.starts[zone + 1] - nodes.starts[zone]:
        nodes.used[zone] += 1
        return nodes.starts[zone] + nodes.used[zone] - 1
    row = nodes.ends[zone, 1]
    if row < 0 or not (evict or (max_age >= 0 and step - nodes.seen[row] > max_age)):
        return -1
    unlink(nodes, zone, row)
    remove(nodes, row)
    return row


@jit
def wait(nodes: Nodes, zone: int, number: int, step: int) -> int:
    """A place among the waiting ids for an id that has none, or -1: it takes that of the id not seen for longest."""
    of = len(nodes.used) + zone
    node = nodes.ends[of, 1]
    if node >= 0:
        unlink(nodes, of, node)
        if nodes.seen[node] >= 0:
            remove(nodes, node)
        assign(nodes, node, number, step)
        nodes.counts[node - nodes.starts[-1]] = 0
    return node


@jit
def give_rows(
    nodes: Nodes, ids: Array, counts: Array, step: int, rules: Array, rows: Array, reset: Array, changed: Array
) -> tuple[int, int, int]:
    """Finds or hands out the rows of the ids of a step.

    Args:
        nodes: rows and waiting ids.
        ids: int64 [n], distinct and sorted, so that the result does not depend on which rank saw them.
        counts: int64 [n], lookups of each.
        step: the number of the step, larger than that of the step before.
        rules: int64 [3], lookups after which an id gets a row; 1 for LRU; steps after which an id is forgotten, or -1.
        rows: int64 [n], receives the row node of each id, -1 where it has none.
        reset: int64 [n], receives the rows that were taken from other ids.
        changed: int64 [n], receives the waiting nodes that have changed.

    Returns:
        How many rows were taken from other ids, waiting nodes changed, and ids admitted.
    """
    admit_after, evict, max_age = rules[0], rules[1] == 1, rules[2]
    num_zones, num_rows = len(nodes.used), nodes.starts[-1]
    num_reset = num_changed = num_admitted = 0
    touch(nodes, ids, step, max_age, rows)
    for i in range(len(ids)):
        node = rows[i]
        if 0 <= node < num_rows:
            continue
        zone = zone_of(ids[i], nodes.zones[1]) - nodes.zones[0]
        total = counts[i] + (nodes.counts[node - num_rows] if node >= 0 else 0)
        if total >= admit_after:
            num_used = nodes.used[zone]
            row = take_row(nodes, zone, step, evict, max_age)
            if row >= 0:
                if nodes.used[zone] == num_used:
                    reset[num_reset] = row
                    num_reset += 1
                if node >= 0:  # its place becomes the first to be taken
                    remove(nodes, node)
                    nodes.seen[node], nodes.counts[node - num_rows] = -1, 0
                    link(nodes, num_zones + zone, node, False)
                    changed[num_changed] = node
                    num_changed += 1
                assign(nodes, row, ids[i], step)
                rows[i] = row
                num_admitted += 1
                continue
        if len(nodes.counts) and node < 0:
            node = wait(nodes, zone, ids[i], step)
        rows[i] = node
        if node >= 0:
            nodes.counts[node - num_rows] = total
            changed[num_changed] = node
            num_changed += 1
    for i in range(len(ids)):  # in the order of ids: so that lists follow from steps and ids, as ``restore`` makes them
        if rows[i] >= 0:
            zone = zone_of(ids[i], nodes.zones[1]) - nodes.zones[0]
            is_row = rows[i] < num_rows
            link(nodes, zone if is_row else num_zones + zone, rows[i], True)
            if not is_row:
                rows[i] = -1
    return num_reset, num_changed, num_admitted


@jit
def index_rows(ids: Array, rows: Array, index: Array) -> None:
    """Fills an empty index with some rows; no two of them have the same id."""
    for row in rows:
        index[find_slot(ids, index, ids[row])] = row


@jit
def find_rows(ids: Array, index: Array, wanted: Array, rows: Array) -> None:
    """Writes the row of each wanted id, -1 where the index has none."""
    for i in range(len(wanted)):
        rows[i] = index[find_slot(ids, index, wanted[i])]


@jit
def add_distinct(
    values: Array,
    lengths: Array,
    samples: Array,
    index: Array,
    distinct: Array,
    counts: Array,
    size: int,
    places: Array,
) -> int:
    """Adds the ids of a feature to the distinct ids of its table.

    Args:
        values: int64 [V], the ids of the feature's rows.
        lengths: int32 [U], the length of each row.
        samples: int64 [U], samples that have the row: each of its ids is looked up so often.
        index: int32 [a power of two, at least twice as many as ids of the table], -1 before the first feature.
        distinct: int64, the distinct ids so far; more are added.
        counts: int64, lookups of each of them.
        size: number of distinct ids so far.
        places: int64 [V], receives the place of each id among the distinct ones.

    Returns:
        The number of distinct ids.
    """
    place = 0
    for row in range(len(lengths)):
        for _ in range(lengths[row]):
            slot = find_slot(distinct, index, values[place])
            if index[slot] < 0:
                index[slot] = size
                distinct[size] = values[place]
                counts[size] = 0
                size += 1
            counts[index[slot]] += samples[row]
            places[place] = index[slot]
            place += 1
    return size
