"""The ``stetho`` command: one small file per sub-command, imported only when it is called."""
