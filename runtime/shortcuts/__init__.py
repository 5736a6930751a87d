"""Shortcuts: a frame for which an earlier answer can stand needs no decision and no computation."""
