"""Rules of caches, without I/O: which entries answer, for whom, how long they are kept, and when looking up pays."""
