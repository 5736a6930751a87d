"""Forecasts: boxes of earlier answers move on to later frames, and keep the identity of their objects."""
