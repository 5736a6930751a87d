"""Decoders: what turns the outputs of a foreign model into boxes with scores, or into logits of classes."""
