"""How analog hardware misbehaves: pure functions on tensors, one technology or effect a file."""
