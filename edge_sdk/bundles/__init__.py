"""Bundles that ship in the wheel; ``default`` is the one that commands use where none is named."""
