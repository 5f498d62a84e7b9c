"""Bundled schedulers: they carry jobs to workers. Opened by URL through hooks; the core imports none of them."""
