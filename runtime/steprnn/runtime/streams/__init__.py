"""Streams by key: the states of many devices, users or sessions, stepped together."""

from .store import Key, SQLite, Store
from .streams import Streams

__all__ = ["Key", "SQLite", "Store", "Streams"]
