"""Helpers that several tests share: simulated devices, real peers, small tables."""
