"""The recipe "labels": read what is written on goods that pass a camera. The footage is rendered here."""
