"""Pieces of work, carried out in this process, by worker processes, or by a Ray cluster: the results are the same."""
