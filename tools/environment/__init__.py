"""The set-up of the virtual environment, called by ``tools/setup_env.py``. Standard library only."""
