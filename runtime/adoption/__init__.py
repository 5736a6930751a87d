"""Make a bundle of a foreign model and the user's footage (``mecpilot adopt``)."""
