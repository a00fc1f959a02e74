#!/usr/bin/env bash
# Installs what the tests need beside Python packages: a C compiler and a Chromium. Does nothing where they are there.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
apt() {
  as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"
}
playwrights_own() {
  .venv/bin/python -c 'from playwright.sync_api import sync_playwright as s
with s() as p: print(p.chromium.executable_path)'
}
has_chromium() {
  [ -x "${BROWSER_TEST_CHROMIUM:-}" ] || [ -x "$(playwrights_own)" ] ||
    command -v chromium || command -v chromium-browser || command -v google-chrome || command -v google-chrome-stable
}

command -v cc >/dev/null || apt gcc libc6-dev

# Playwright's own Chromium where it can be downloaded; else the system's.
if ! has_chromium >/dev/null; then
  .venv/bin/playwright install --with-deps chromium || apt chromium
  has_chromium >/dev/null || { echo "There is no Chromium; install one, or name it in BROWSER_TEST_CHROMIUM."; exit 1; }
fi
