# Sourced by the scripts here: where things are, and how what is missing comes
# to a clean Debian 12. Quiet unless something fails.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

say() { printf '%s\n' "$*"; }
die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# need_packages COMMAND=PACKAGE...: installs the packages whose commands are not
# there.
need_packages() {
	local pair missing=() log
	for pair in "$@"; do
		command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair#*=}")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$(id -u)" = 0 ] || die "missing: ${missing[*]}; install these packages, or run this as root"
	command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them (there is no apt-get here)"
	log=$(mktemp)
	if ! apt_install "${missing[@]}" >"$log" 2>&1 &&
		! { apt-get update && apt_install "${missing[@]}"; } >"$log" 2>&1; then # the lists may be old
		cat "$log" >&2
		rm -f "$log"
		die "could not install: ${missing[*]}"
	fi
	rm -f "$log"
}

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null; }

# need_cc: a C compiler with the C library's headers.
need_cc() {
	need_packages gcc=gcc
	[ -e /usr/include/stdlib.h ] || need_packages no-such-command=libc6-dev
}

# need_go: a Go toolchain that can build this. Any since 1.21 can: it fetches
# the version that go.mod asks for by itself.
need_go() {
	local want candidate
	want=$(awk '$1 == "go" { print $2 }' go.mod)
	command -v go >/dev/null || [ ! -x /usr/local/go/bin/go ] || PATH=$PATH:/usr/local/go/bin
	if ! command -v go >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-cache >/dev/null; then
		candidate=$(LC_ALL=C apt-cache policy golang-go | sed -n 's/ *Candidate: \([0-9]*:\)\?//p')
		if [ -n "$candidate" ] && dpkg --compare-versions "$candidate" ge 1.21; then
			need_packages go=golang-go
		fi
	fi
	command -v go >/dev/null || die "Go $want or newer is needed to build fermata, and is not here.
Get it from https://go.dev/dl/ (go$want or newer, linux-$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')) and unpack it into /usr/local:
    tar -C /usr/local -xzf go*.tar.gz
Then run this again; /usr/local/go/bin is looked into even if it is not in PATH."
	export PATH CGO_ENABLED=0
}

# build_fermata: the program itself, static and without paths of this machine.
build_fermata() {
	need_go
	mkdir -p bin
	go build -trimpath -o bin/fermata ./cmd/fermata
}
