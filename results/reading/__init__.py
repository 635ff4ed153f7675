"""How run folders are read: what is clean many at once, what is not line by line, what has not changed from a cache."""
