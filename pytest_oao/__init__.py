"""The pytest face of oao; see `plugin.py`."""
