"""Zoos: many trained networks of many architectures, as one data set on disk.

``store.py`` reads a zoo, ``importing.py`` makes one of what others published.
"""

from ngc.zoo.importing import import_zoo
from ngc.zoo.store import Rows, Zoo, ZooArchitecture, open_zoo

__all__ = ["Rows", "Zoo", "ZooArchitecture", "import_zoo", "open_zoo"]
