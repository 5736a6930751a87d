"""Every figure of README and docs, measured on this machine: ``make bench`` or ``python -m benchmarks NAME``."""
