import fcntl, hashlib, os, tempfile
from contextlib import contextmanager
from pathlib import Path
@contextmanager
def machine_lock(name, *, shared=False):
    folder = Path(tempfile.gettempdir()) / f"dsmi-zoo-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / hashlib.sha256(name.encode()).hexdigest()[:20]).open("w") as f:
        fcntl.flock(f, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
