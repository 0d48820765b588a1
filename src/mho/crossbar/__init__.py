"""Weights to conductances to tiles, and the one operator to which every layer lowers."""
