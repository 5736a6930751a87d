"""Sockets and connections: from an endpoint's name to a link that comes back."""
