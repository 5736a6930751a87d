"""Models of other people and footage for them: what docs/own-models.md adopts."""
