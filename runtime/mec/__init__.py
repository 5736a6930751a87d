"""The MEC server: it runs tail segments for many devices."""
