"""What the kernel says of a process: whether it is stopped, held by a debugger, or waits for a free core."""

from contextlib import suppress
from pathlib import Path

STOPPED, HELD = "stopped", "held"


def state_of(pid: int) -> str:
    """``stopped`` by a signal, ``held`` by a debugger, or empty where neither holds, or the process is gone.

    Args:
        pid: the process.
    """
    with suppress(OSError, ValueError):
        said = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        if said.get("TracerPid", "0").strip() != "0":
            return HELD
        if said.get("State", "").startswith("T"):
            return STOPPED
    return ""


class CoreWaits:
    """Sums up how long processes were ready to run while no core was free for them, or their quota was used up."""

    def __init__(self) -> None:
        self._waited_ns: dict[Path, int] = {}

    def look(self, pids: list[int]) -> float:
        """Seconds that the thread which waited longest has waited since the last look.

        Args:
            pids: the processes; all their threads count.
        """
        longest_ns, now = 0, {}
        for pid in pids:
            with suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    with suppress(OSError, ValueError, IndexError):
                        now[thread] = int((thread / "schedstat").read_text().split()[1])
                        longest_ns = max(longest_ns, now[thread] - self._waited_ns.get(thread, now[thread]))
        self._waited_ns = now
        return longest_ns / 1e9
