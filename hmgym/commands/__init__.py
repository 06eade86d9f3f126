"""The subcommands of ``hmgym``, one module each. They need the extra ``train``."""
