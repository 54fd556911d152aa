"""Who hangs: not those that wait, and not those that take what they may."""

from recd_dist.ranks.hung import RankState, describe, find_hung


def state(
    rank: int, for_s: float = 1.0, begun: int | None = 8, allowed_s: float = 10.0, phase: str = "a step"
) -> RankState:
    return RankState(rank, f"host{rank // 2}", phase, 7, for_s, allowed_s, begun)


def test_the_rank_that_has_begun_fewest_collectives_hangs() -> None:
    states = [state(0, 12.0), state(1, 12.0, begun=7), state(2, 12.0), state(3, 12.0)]
    assert find_hung(states, 4) == [states[1]]


def test_a_slow_reader_a_checkpoint_and_a_first_step_keep_the_others_waiting() -> None:
    for phase in ("a batch of the reader", "a checkpoint", "the start"):
        states = [state(0, 300.0), state(1, 300.0, begun=7, allowed_s=1800.0, phase=phase)]
        assert find_hung(states, 2) == []


def test_ranks_that_all_wait_at_one_place_hang_together() -> None:
    states = [state(0, 12.0), state(1, 12.0)]
    assert find_hung(states, 2) == states


def test_a_rank_that_comes_late_to_a_collective_hangs_alone() -> None:
    states = [state(0, 9.0, begun=9), state(1, 11.0, begun=8)]
    assert find_hung(states, 2) == [states[1]]


def test_nobody_hangs_while_one_of_the_last_ones_may_still_take_its_time() -> None:
    """Rank 1 waits for a core or is held by a debugger; rank 0 waits for it in a collective that both have begun."""
    assert find_hung([state(0, 12.0), state(1, 3.0)], 2) == []


def test_a_rank_that_is_stuck_in_code_is_not_excused_by_one_that_reads() -> None:
    states = [state(0, 12.0), state(1, 12.0, allowed_s=1800.0, phase="a batch of the reader")]
    assert find_hung(states, 2) == [states[0]]


def test_without_counts_nobody_is_blamed_while_one_may_take_its_time() -> None:
    busy = state(1, 300.0, begun=None, allowed_s=1800.0)
    assert find_hung([state(0, 12.0, begun=None), busy], 2) == []
    both = [state(0, 12.0, begun=None), state(1, 12.0)]
    assert find_hung(both, 2) == both


def test_nobody_is_blamed_while_a_rank_is_unknown() -> None:
    assert find_hung([state(0, 12.0)], 2) == []
    assert find_hung([], 0) == []


def test_one_line_says_who_where_and_for_how_long() -> None:
    assert describe([state(1, 12.4)], "model.py:34 in forward") == (
        "rank 1 hangs: a step after step 7, in model.py:34 in forward, takes 12 s, allowed are 10 s"
    )
    assert describe([state(0), state(1)]).startswith("ranks 0, 1 hang: a step after step 7 takes")
    stopped = RankState(2, "host1", "a step", 7, 12.0, 10.0, 8, stopped_s=11.0)
    assert describe([stopped]) == "rank 2 hangs: its process was stopped 11 s ago (after step 7)"
