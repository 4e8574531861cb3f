"""What stands behind the tools and ``python -m polynl_mm``: one command line each."""
