"""Makes pynetdicom wait for its own thread: `install()` before associations are made, or

    steady.py APPLICATION ARGUMENTS   as `python -m pynetdicom` does

Before it sends a request, pynetdicom 3.0.4 pauses the thread that looks for messages, which would take the response off the
queue (`Association._run_reactor`). Between the end of that thread's wait and its note that it runs again there is a moment in
which a sender takes the old note for a new one. On a busy machine the response is lost then, and the sender waits for half a
minute for what it has been sent. Here the end of the wait and the note are one step.
"""

import runpy
import sys
import threading

from pynetdicom.association import Association


class Checkpoint(threading.Event):
    def __init__(self, association):
        super().__init__()
        self._association = association
        self._step = threading.Lock()

    def wait(self):
        while True:
            super().wait()
            with self._step:
                if self.is_set():
                    self._association._is_paused = False
                    return True

    def clear(self):
        with self._step:
            super().clear()


def install(initialise=Association.__init__):
    def __init__(self, *arguments, **named):
        initialise(self, *arguments, **named)
        was_set = self._reactor_checkpoint.is_set()
        self._reactor_checkpoint = Checkpoint(self)
        if was_set:
            self._reactor_checkpoint.set()

    Association.__init__ = __init__


if __name__ == "__main__":
    install()
    runpy.run_module("pynetdicom", run_name="__main__", alter_sys=True)
