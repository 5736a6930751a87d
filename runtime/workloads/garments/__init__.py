"""The garments workload: Fashion-MNIST classification."""
