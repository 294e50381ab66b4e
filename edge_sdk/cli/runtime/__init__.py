"""Commands on the device side: listen, screen, demo, devices, device-sim."""
