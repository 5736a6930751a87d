"""Training of the network that knows empty frames, on footage that a model of a bundle labels."""
