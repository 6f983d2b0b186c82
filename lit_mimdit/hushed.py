"""Silences remarks of libraries when it is imported.

A server of processes is told modules to import and nothing to call: this one comes first.
"""

from lit_mimdit.quiet import hush

hush()
