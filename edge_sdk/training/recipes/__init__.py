"""Recipes: one YAML file for each system, and the typed settings that they are checked against."""
