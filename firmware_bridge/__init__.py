"""Link between the SDK and stethoscope firmware: protocol, framing, device link, emulators."""
