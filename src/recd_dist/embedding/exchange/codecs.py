"""How vectors and gradients may be written on the wire, by name; no torch, so that a job is checked without it.

| name | bytes of a row of c columns | forward | backward |
|---|---|---|---|
| fp32 | 4 c | yes | yes |
| fp16 | 2 c | yes | yes; gradients below 6e-8 become 0, those beyond 65,504 infinite |
| bf16 | 2 c | yes | yes |
| int8 | c + 8: a scale and a shift per row of a table | yes | no: small gradients are lost in every step |

Row shards are decoded before they are added up, so every codec is right under every sharding. (TorchRec's own: bf16 is
silently fp16, int8 fails under row-wise sharding, fp8 fails; torchrec 1.8.)
"""

from collections.abc import Iterable
from dataclasses import dataclass

from recd_dist.errors import ConfigError, nearest

NAMES = ("fp32", "fp16", "bf16", "int8")


def row_bytes(name: str, columns: Iterable[int]) -> int:
    """Bytes of a row of some tables' columns.

    Args:
        name: of a codec.
        columns: of each table, or shard of one.
    """
    return sum({"fp32": 4 * c, "fp16": 2 * c, "bf16": 2 * c, "int8": c + 8}[name] for c in columns)


@dataclass(frozen=True)
class Codecs:
    """The codec of each direction.

    Attributes:
        forward: of vectors.
        backward: of their gradients.

    Raises:
        ConfigError: a name that does not exist, or int8 gradients.
    """

    forward: str = "fp32"
    backward: str = "fp32"

    def __post_init__(self) -> None:
        for direction in ("forward", "backward"):
            name = getattr(self, direction)
            if name not in NAMES:
                raise ConfigError(f"plan.codec.{direction}={name}: unknown{nearest(str(name), NAMES)}")
        if self.backward == "int8":
            raise ConfigError(
                "plan.codec.backward=int8: of gradients rounded to 255 steps of their row's range small ones are lost "
                "in every step; use fp16 or bf16"
            )
