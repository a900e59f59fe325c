#!/usr/bin/env bash
# The pictures of a report in the documentation, light and dark, by a Chromium without a window.
#   recipes/report/screenshot.sh run/report.html docs/images/audit      writes docs/images/audit-light.png and -dark.png
set -euo pipefail
usage="usage: recipes/report/screenshot.sh REPORT.html PICTURE"
report=$(realpath "${1:?$usage}") picture=${2:?$usage}
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
options=(--headless --disable-gpu --hide-scrollbars --user-data-dir="$profile" --window-size="${SIZE:-1040,1300}")
if [ "$(id -u)" = 0 ]; then options+=(--no-sandbox); fi # root has none
scheme=1
for name in light dark; do
  "${CHROMIUM:-chromium}" "${options[@]}" --blink-settings=preferredColorScheme=$scheme --screenshot="$picture-$name.png" "file://$report"
  scheme=0
done
