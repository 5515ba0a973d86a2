"""The commands of ``dsmi-zoo``, one file each: they read options and call what does the work."""
