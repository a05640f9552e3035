"""The version, for all that say it: a file of its own, since the package itself reaches up to its Python API."""

__version__ = "0.3.0"
