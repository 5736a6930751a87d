"""Building a bundle: training its models and recording their answers."""
