"""The ``stetho`` command: one small file per sub-command, imported only when it is called."""

import sys

if sys.argv[:1] and sys.argv[0].replace("\\", "/").rpartition("/")[2] in ("stetho", "stetho.exe", "-m"):
    # This process is the command. Until it handles signals itself (cli.ending), Ctrl-C ends it without a traceback.
    import _signal  # type: ignore[import-not-found]  # built in; signal itself takes longer to load

    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
