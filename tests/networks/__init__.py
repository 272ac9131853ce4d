"""Hand-made networks, exported from torch in three ways: see ``test_exporters.py``."""
