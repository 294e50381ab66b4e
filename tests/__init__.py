"""The tests are a package of their own: a dependency of sed_eval installs another one of this name."""
