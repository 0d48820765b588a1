"""``python -m mho.cli``: the same as ``mho``, for where no scripts are installed."""

from mho.cli.main import main

main()
