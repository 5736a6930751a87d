"""The commands of the runtime: device, mec, models, profile."""
