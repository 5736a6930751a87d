"""The campus workload: person detection on a surveillance camera."""
