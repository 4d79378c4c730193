"""What the reader raises where it leaves a message to the library; an exception, and so not compiled."""

from __future__ import annotations


class Unread(Exception):
    """The message holds something that the reader does not know, or is none: the library reads it, or says what is wrong with it."""
