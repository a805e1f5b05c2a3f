"""`python -m logagg.cli` is `logagg`."""

from logagg.cli.main import main

main()
