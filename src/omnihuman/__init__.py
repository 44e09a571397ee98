"""OmniHuman: train, compare, release and run models that turn one picture and a driving signal into video."""

__version__ = "0.1.0"
