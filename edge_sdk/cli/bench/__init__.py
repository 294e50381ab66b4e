"""``stetho bench``: timings and scores of this machine."""
