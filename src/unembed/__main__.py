"""`python -m unembed`, which is also how `torchrun -m unembed` and `accelerate launch -m unembed` start the command."""

from unembed.cli.main import main

main()
