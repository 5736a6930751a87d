"""Helpers of the benchmarks: faults, proxies, hostile peers, payload measurements, the machine's profile."""
