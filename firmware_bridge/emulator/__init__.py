"""An emulated stethoscope: device, port, outbox, faults."""
