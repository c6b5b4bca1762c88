"""``python -m laser``, which launchers of several processes can start."""

from laser.cli.main import main

main()
