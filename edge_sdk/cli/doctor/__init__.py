"""``stetho doctor``: what works on this machine."""
