"""Link between the SDK and stethoscope firmware: protocol, framing, device link, emulator. Never imports edge_sdk."""
