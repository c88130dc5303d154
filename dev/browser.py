"""`python -m dev.browser`: a browser for the console's tests.

An installed Chrome or Chromium, else Playwright's own, which is fetched where that works, else Debian's package.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW = "The console is tested in a real browser, and none could be installed. Install Chrome or Chromium."
FETCHING = 300  # seconds


def installed() -> str | None:
    """The Chrome or Chromium of this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def has_own() -> bool:
    """Whether Playwright has its own."""
    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path).exists()


def fetch() -> bool:
    """Have Playwright fetch its own."""
    return _run([sys.executable, "-m", "playwright", "install", "chromium"])


def install() -> bool:
    """Install Debian's package, as root or by sudo."""
    if shutil.which("apt-get") is None:
        return False
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    return _run([*sudo, *quiet, "update"]) and _run([*sudo, *quiet, "install", "-y", "chromium"])


def _run(order: list[str]) -> bool:
    try:
        return subprocess.run(order, timeout=FETCHING, check=False).returncode == 0  # noqa: S603 - our own words
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def main() -> int:
    """0 where there is a browser now."""
    if installed() or has_own() or fetch() or install():
        return 0
    print(HOW, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
