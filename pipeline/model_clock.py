import faulthandler
from contextlib import contextmanager
class ModelClock:
    def __init__(self, seconds, log): self.s, self.log = seconds, log
    @contextmanager
    def running(self):
        if self.s is None:
            yield; return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as file:
            faulthandler.dump_traceback_later(self.s, exit=True, file=file)
            try: yield
            finally: faulthandler.cancel_dump_traceback_later()
        self.log.unlink(missing_ok=True)
