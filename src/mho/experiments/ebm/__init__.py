"""Energy-based experiments: ``mho run ebm-eqprop``, ``ebm-resistive``, ``ebm-generate``."""
