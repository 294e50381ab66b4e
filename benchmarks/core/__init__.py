"""What every benchmark uses: harness, rows, machine, audio."""
