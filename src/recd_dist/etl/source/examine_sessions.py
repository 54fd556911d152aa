"""Whether session numbers begin anew for each user, as far as the first rows tell.

::

    user  session  time
    alice    1     09:00      one session to a reader who looks at the number alone,
    bob      1     17:30      8.5 hours long and of two users
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from recd_dist.etl.source.column_sql import is_time, time_sql
from recd_dist.etl.source.described_queries import RawQuery
from recd_dist.etl.source.source import Source
from recd_dist.etl.source.time_units import ticks_of
from recd_dist.table.announcement import Announcement
from recd_dist.table.flat import identifier

_LIKE_A_USER = re.compile(r"(user|member|customer|visitor|client|account|uid)(_?(id|key|hash))?$", re.IGNORECASE)
_HOURS = 6
_SOME = 0.01  # a few sessions of hours are people who come back, or machines

Ask = Callable[[Sequence[str], str], list[Any]]
"""Returns the values of aggregates over a query."""


def examine_sessions(source: Source, query: RawQuery, num_rows: int, ask: Ask) -> Iterable[Announcement]:
    """Looks at the sessions that a column names, where no user is named beside it.

    Args:
        source: describes the raw logs.
        query: the samples query.
        num_rows: the number of rows to look at.
        ask: asks DuckDB.
    """
    if source.session_by != "column" or "user" in source.keys:
        return
    session, time = source.keys["session"], source.keys.get("timestamp")
    users = [name for name in query.types if _LIKE_A_USER.match(name) and name != session]
    rows = f"(select * from ({query.sql}\n) limit {num_rows}) group by {identifier(session)} having count(*) > 1"
    cure = f"data.keys.user={users[0] if users else 'USER_COLUMN'} makes sessions of (user, session)"
    if users:
        per_session = f"select count(distinct {identifier(users[0])}) as num_users from {rows}"
        num, num_shared = ask(("count(*)", "count(*) filter (num_users > 1)"), per_session)
        if num_shared:
            found = f"keys.session: {num_shared:,} of {num:,} sessions in the first rows have several '{users[0]}'"
            yield Announcement(f"{found}, as where session numbers begin anew for each user", num_shared, cure)
            return
    if time is not None and (second := _second(time, query, num_rows, ask)) is not None:
        ticks = time_sql(time, query.types[time])
        per_session = f"select max({ticks}) - min({ticks}) as span from {rows}"
        num, num_long = ask(("count(*)", f"count(*) filter (span > {_HOURS * 3600 * second})"), per_session)
        if num_long > _SOME * num:
            found = f"keys.session: {num_long:,} of {num:,} sessions in the first rows last more than {_HOURS} hours"
            yield Announcement(f"{found}, as where session numbers begin anew for each user", num_long, cure)


def _second(time: str, query: RawQuery, num_rows: int, ask: Ask) -> int | None:
    """A second in the unit of the timestamps; None where nobody knows the unit of integers."""
    if is_time(query.types[time]):
        return 1_000_000
    (latest,) = ask((f"max({identifier(time)})",), f"select * from ({query.sql}\n) limit {num_rows}")
    return None if latest is None else ticks_of(int(latest))
