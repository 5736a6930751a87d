"""Everything that can decide: the classical controllers, the learned policy, and the table of their names."""
