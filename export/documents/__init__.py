"""Documents of a bundle: model card and bill of materials."""
