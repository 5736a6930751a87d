"""Predictions: bandwidth of the uplink, latency of each candidate, and what each candidate would achieve."""
