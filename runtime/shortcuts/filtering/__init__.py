"""The input filter: frames that show nothing new, or nothing at all, are not run."""
