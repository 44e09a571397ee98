"""Errors that are the user's to mend."""


class UserError(Exception):
    """Input or configuration is wrong. The message says what, where and the remedy; the command line exits with 2."""
