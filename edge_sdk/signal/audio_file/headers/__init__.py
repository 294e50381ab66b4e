"""Headers of containers of plain samples, and where their audio really ends."""
