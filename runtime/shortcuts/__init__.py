"""Shortcuts before a decision: a frame that an earlier answer can stand for is not decided and not run."""
