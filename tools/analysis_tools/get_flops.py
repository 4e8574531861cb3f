"""Operations and parameters of a config's model, by torch's operation counter."""

from polynl_mm.commands.get_flops import main

if __name__ == "__main__":
    main()
