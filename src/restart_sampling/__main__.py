"""`python -m restart_sampling`, for torchrun."""

from restart_sampling.cli import main

if __name__ == "__main__":
    main()
