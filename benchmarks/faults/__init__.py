"""Faults on purpose, each against a stated bound."""
