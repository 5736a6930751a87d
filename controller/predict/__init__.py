"""Predictions: bandwidth of the uplink, transfer times, latency of each candidate, and what each candidate would achieve."""
