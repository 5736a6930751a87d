"""The best that could have been done: a beam search over the twin with the future known."""
