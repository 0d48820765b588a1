"""Monte Carlo over virtual chips and its statistics. See README.md of this folder."""
