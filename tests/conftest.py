"""Before anything is imported: where Triton is installed, its kernels run in the interpreter, whoever imports it first."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
