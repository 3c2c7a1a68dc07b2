"""The one place where the version of Mica stands."""

__all__ = ["__version__"]

__version__ = "0.1.0"
