"""How long segments take on this machine, measured and stored."""
