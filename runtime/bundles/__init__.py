"""Bundles: models, manifest and recorded predictions in one folder, checked by SHA-256."""
