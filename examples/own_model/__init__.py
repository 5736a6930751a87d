"""Parts for mecpilot from an installed package: a workload, a decoder, a codec and an engine, and a model."""
