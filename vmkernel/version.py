"""The only place for the version of Mica."""

__all__ = ["__version__"]

__version__ = "0.1.0"
