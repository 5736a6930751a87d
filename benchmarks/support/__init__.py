"""Helpers of the benchmarks: faults, hostile peers, payload measurements, the machine's profile."""
