"""Commands that are killed before each of their changes of files, and what becomes of what is left.

`python -m tests.faults --all` prints a table. A command runs once under watch (`watch.py`): the
kernel stops it before every system call that changes a file under its folder, and the folder as it
is at this moment is what a kill would leave (`states.py`). From every such state the next command
must go on as if nothing had happened (`harness.py`): to the same result, without an error, and with
nothing left over. `commands.py` lists the commands.
"""
