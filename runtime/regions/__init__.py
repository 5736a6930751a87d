"""Regions of interest: a part of the picture is run, where something moves."""
