"""Whether an environment is sound; `rlstack.env` hands on `check_env`."""
