"""The input filter: frames that show nothing new are not run."""
