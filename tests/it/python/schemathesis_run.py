"""schemathesis with the arguments of its command, and without the garbage collector: hypothesis watches each collection, and
one in the middle of `ast.parse` ends with "AST constructor recursion depth mismatch" in CPython 3.11."""

import gc

from schemathesis.cli import schemathesis

gc.disable()
schemathesis()
