"""Adopted workloads: models that were made elsewhere, on the footage of whoever brings them."""
