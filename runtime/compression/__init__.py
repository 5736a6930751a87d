"""Compressed variants of the models of a bundle: fewer channels, fewer bits per weight."""
