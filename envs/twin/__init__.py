"""The twin: emulated devices, links and a MEC, stepped in batches."""
