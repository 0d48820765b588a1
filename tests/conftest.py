"""Where Triton is installed its kernels run in the interpreter, whoever imports it first: set before any import."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
