"""Commands of the export layer: export, compile, verify, keys, triton."""
