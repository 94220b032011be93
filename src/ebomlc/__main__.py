"""``python -m ebomlc`` is the command line."""

from ebomlc.cli.main import main

main()
