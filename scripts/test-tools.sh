#!/bin/sh
# Gets what the black-box tests use besides Rust, into the target folder, and changes nothing else:
#   TARGET/tools/bin/promtool   taken out of Debian's package `prometheus`, which is not installed
#   TARGET/tools/nginx          Debian's packages `nginx` and `libnginx-mod-stream`, likewise
#   TARGET/tools/lib/           libfaketimeMT.so.1 out of Debian's package `libfaketime`, likewise
#   TARGET/venv                 Python with the packages of scripts/requirements.txt
#   TARGET/cql-engine/lib       Apache Cassandra's jars, unless a Docker engine answers: then ScyllaDB's image
# Only what Debian has to install (a C compiler, Python, a browser, Java and Maven) is installed, and only as root.
# What cannot be had is said and left out: the tests that need it skip, or fail when CI=true.
set -u
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
say() { printf '    %s\n' "$*"; }

# Debian's lists are read once, and only if something is to be fetched.
lists_read=
read_lists() {
  [ -z "$lists_read" ] || return 0
  lists_read=yes
  if [ "$(id -u)" -eq 0 ]; then
    say "reading Debian's package lists"
    apt-get update -qq || say "apt-get update failed: going on with the lists there are"
  fi
}

# installed COMMAND PACKAGE...: installs the packages if the command is missing and we may.
installed() {
  command=$1
  shift
  command -v "$command" >/dev/null 2>&1 && return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    say "$command is missing: install $* (Debian's names) and run this again"
    return 1
  fi
  read_lists
  say "installing $*"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

get_promtool() {
  tool=$target/tools/bin/promtool
  if [ -x "$tool" ]; then
    say "promtool: $tool"
    return 0
  fi
  mkdir -p "$target/tools/bin" "$target/tools/prometheus"
  if command -v promtool >/dev/null 2>&1; then
    ln -sf "$(command -v promtool)" "$tool"
  elif command -v apt-get >/dev/null 2>&1; then
    read_lists
    (cd "$target/tools/prometheus" && rm -f ./*.deb && apt-get download -qq prometheus 2>/dev/null && dpkg -x ./*.deb .) &&
      cp "$target/tools/prometheus/usr/bin/promtool" "$tool"
    rm -rf "$target/tools/prometheus"
  fi
  if [ -x "$tool" ]; then
    say "promtool: $tool"
  else
    say "promtool is missing: it comes with Prometheus (Debian's package prometheus)"
  fi
}

get_nginx() {
  tool=$target/tools/nginx
  module=$tool/usr/lib/nginx/modules/ngx_stream_module.so
  if [ ! -e "$module" ] && command -v apt-get >/dev/null 2>&1; then
    read_lists
    rm -rf "$tool"
    mkdir -p "$tool"
    (cd "$tool" && apt-get download -qq nginx libnginx-mod-stream 2>/dev/null && for deb in *.deb; do dpkg -x "$deb" . || exit 1; done)
    rm -f "$tool"/*.deb
  fi
  # It is only unpacked, so a library that it wants may be missing.
  if [ -e "$module" ] && "$tool/usr/sbin/nginx" -v >/dev/null 2>&1; then
    say "nginx: $tool/usr/sbin/nginx"
  else
    rm -rf "$tool"
    say "nginx is missing: the test with it in front of several machines will not run"
  fi
}

get_faketime() {
  tool=$target/tools/lib/libfaketimeMT.so.1
  if [ -e "$tool" ]; then
    say "libfaketime: $tool"
    return 0
  fi
  mkdir -p "$target/tools/lib" "$target/tools/faketime"
  if command -v apt-get >/dev/null 2>&1; then
    read_lists
    (cd "$target/tools/faketime" && rm -f ./*.deb && apt-get download -qq libfaketime 2>/dev/null && dpkg -x ./*.deb .) &&
      cp "$target"/tools/faketime/usr/lib/*/faketime/libfaketimeMT.so.1 "$tool"
    rm -rf "$target/tools/faketime"
  fi
  if [ -e "$tool" ]; then
    say "libfaketime: $tool"
  else
    say "libfaketime is missing: it is Debian's package libfaketime"
  fi
}

get_python() {
  if cmp -s scripts/requirements.txt "$target/venv/requirements.txt"; then
    say "Python: $target/venv"
    return 0
  fi
  installed python3 python3 python3-venv || return 0
  rm -rf "$target/venv"
  if ! python3 -m venv "$target/venv" >/dev/null 2>&1; then
    # Debian splits venv off; the python3 found first may not be Debian's.
    rm -rf "$target/venv"
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
      read_lists
      say "installing python3 python3-venv"
      DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3 python3-venv >/dev/null
      /usr/bin/python3 -m venv "$target/venv"
    fi
  fi
  if [ ! -x "$target/venv/bin/python" ]; then
    say "Python's venv is missing: install python3-venv (Debian's name) and run this again"
    return 0
  fi
  say "fetching chirpstack-api into $target/venv"
  if "$target/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r scripts/requirements.txt; then
    # Written last: a half-filled folder is filled anew.
    cp scripts/requirements.txt "$target/venv/requirements.txt"
    say "Python: $target/venv"
  else
    say "pip failed: the tests with ChirpStack's official client will not run"
  fi
}

get_cql_engine() {
  if [ -n "${LIMPET_TEST_CQL:-}" ]; then
    say "CQL engine: the one of LIMPET_TEST_CQL"
    return 0
  fi
  if ! timeout 10 docker info >/dev/null 2>&1; then
    # Cassandra 5 wants exactly this version.
    installed java openjdk-17-jre-headless || return 0
    [ -e "$target/cql-engine/lib/complete" ] || installed mvn maven || return 0
  fi
  scripts/cql-engine.sh fetch || say "the tests that need a CQL engine will not run"
}

get_browser() {
  if command -v chromium >/dev/null 2>&1 && command -v chromedriver >/dev/null 2>&1; then
    say "Chromium: $(command -v chromium)"
    return 0
  fi
  [ "$(id -u)" -ne 0 ] || say "a browser comes now, some 100 MB: this takes a minute or two"
  if installed chromedriver chromium chromium-driver; then
    say "Chromium: $(command -v chromium)"
  else
    say "without a browser the console's test will not run"
  fi
}

installed cc gcc libc6-dev || exit 1
mkdir -p "$target"
get_promtool
get_nginx
get_faketime
get_python
get_browser
get_cql_engine
installed nft nftables || say "without nft no worker is cut off from the database (LIMPET_FULL=1)"
