"""Files that are read and written: whole or not at all, checked, and named in results."""
