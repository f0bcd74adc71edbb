"""Checks of backups with the program age: encrypted while a server runs, and restored on another state."""

from check_rest import served
from session import check, need


@check("age", "age-keygen", "curl")
def token_backup_age(s):
    """A backup encrypted by age is restored with its key; a changed one, and another key, are refused."""
    files, state = s.local / "restored" / "files", s.local / "restored" / "state"
    files.mkdir(parents=True)
    keys = {name: s.local / name for name in ("key", "other")}
    for path in keys.values():
        s.run("age-keygen", "-o", path)
    recipient = s.run("age-keygen", "-y", keys["key"]).stdout.strip()
    backup = s.local / "backup.age"
    with served(s) as (url, gateway):
        gateway("admin", "user", "create", "alice")
        token = gateway("admin", "user", "token", "-u", "alice", "-e", "1h", "-q")
        s.run("curl", "-sSf", "-u", f"alice:{token}", "-T", "-", f"{url}/dav/alice/a", text="content")
        gateway("admin", "backup", backup, "--age-recipient", recipient)
    need(backup.read_bytes().startswith(b"age-encryption.org/v1\n"), "it is not encrypted")
    restore = [s.options.gateway, "--state", state, "admin", "restore"]

    def refused(file, key, reason):
        done = s.run(*restore, file, "--age-identity", keys[key], expect=1)
        need(reason in done.stderr, f"{reason}: {done}")
        need(not state.exists(), "a refused restore leaves a state")

    refused(backup, "other", "no identity matched")
    changed = s.local / "changed.age"
    content = bytearray(backup.read_bytes())
    content[-40] ^= 1
    changed.write_bytes(content)
    refused(changed, "key", "authenticate")
    cut = s.local / "cut.age"
    cut.write_bytes(backup.read_bytes()[:-100_000])
    refused(cut, "key", "age can't decrypt")
    report = s.run(*restore, backup, "--age-identity", keys["key"]).stdout
    need("live tokens:" in report and " 1, " in report, report)
