"""A network of its own on this machine: namespaces, a shaped uplink, and real TCP between devices and a MEC."""
