"""What each plugin would cost in a network, before any is trained."""

from polynl_mm.commands.compare_plugins import main

if __name__ == "__main__":
    main()
