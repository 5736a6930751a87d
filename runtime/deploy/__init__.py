"""Deployment: signed releases of bundles and policies, their store, their health check, and how they get to a MEC."""
