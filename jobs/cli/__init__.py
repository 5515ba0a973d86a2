"""The command line: options, and one function per command, which imports what it needs when it is called.

May import every other room of the jobs.
"""
