"""The way to a MEC: sockets, a link that reconnects, and the connection object that a device owns per MEC."""
