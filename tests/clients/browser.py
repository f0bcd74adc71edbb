"""Starts headless Chromium with a profile of its own and no network traffic of its own."""

OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]


def chromium(s, *arguments, name="profile"):
    """The command line of a browser with a profile in the check's local folder."""
    return ["chromium", *OPTIONS, f"--user-data-dir={s.local / name}", *arguments]


def dom(s, url, **more):
    """The page at an address as the browser has it once its scripts have run."""
    return s.run(*chromium(s, "--dump-dom", url), **more).stdout
