"""Predictions: bandwidth of the uplink, times of transfers and candidates, and what each candidate would achieve."""
