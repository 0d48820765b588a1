"""Virtual chips: fixed, seeded instances of a hardware, many at once. See README.md of this folder."""

from mho.chips.lot import Chips, fabricate

__all__ = ["Chips", "fabricate"]
