"""Annotation formats of other tools, each written and read; one module a format, one table of all in ``formats``."""
