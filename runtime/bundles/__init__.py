"""Bundles: models, manifest and recorded answers in one folder, checked by SHA-256."""
