"""What ``convert`` was asked for, besides the network."""

from dataclasses import dataclass
from typing import Literal

from mho.crossbar.ops import Op
from mho.hardware.spec import Hardware
from mho.nn.site import Site


@dataclass(frozen=True)
class Policy:
    """Hardware and treatment of one layer."""

    hw: Hardware
    ranges: Literal["calibrated", "learned"] = "calibrated"
    clip_sigma: float | None = None
    backward: Literal["ideal", "noisy"] = "ideal"

    def site(self, name: str, op: Op) -> Site:
        """The site of one weight; refuses at once what does not fit the tiles."""
        op.blocks(self.hw.tile.rows)
        return Site(name, op, self.hw, self.backward, self.ranges == "learned", self.clip_sigma)


def parameter_name(module: str, parameter: str) -> str:
    """Full name of a parameter of the module called ``module`` ("" for the root)."""
    return f"{module}.{parameter}" if module else parameter
