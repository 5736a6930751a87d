"""Who a device and a MEC are to each other: key files, the list of admitted devices, and CURVE on every socket."""
