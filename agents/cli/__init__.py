"""The commands of the learning side: train, export, tune, evaluate."""
