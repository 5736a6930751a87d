"""A soak: real devices and MECs for an hour, random faults, and an account of every frame, process and resource."""
