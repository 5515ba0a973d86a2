"""Imported by the tests' process and by the one that commands fork from: no test waits for the disk, 7 ms a file.

What survives a power cut is tested by `power_cuts`, which records these calls.
"""

import os

os.fsync = lambda _descriptor: None
