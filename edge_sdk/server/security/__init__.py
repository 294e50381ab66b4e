"""What protects the server: who may ask, from where, how much, and a log of it."""
