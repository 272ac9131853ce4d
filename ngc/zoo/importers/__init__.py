"""Importers: what others publish -> members of a zoo. One file each; ``find.py`` chooses."""
