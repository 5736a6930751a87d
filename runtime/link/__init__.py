"""The link to a MEC: sockets, reconnection, an emulated uplink, telemetry, and the connection object per MEC."""
