#!/bin/sh
# Installs the programs that the tests of this directory carry through: what is
# there already is left alone, and nothing is said unless something fails.
set -eu

# A command, and the package that brings it.
needs='
/usr/sbin/apache2 apache2-bin
/usr/sbin/mariadbd mariadb-server-core
/usr/sbin/nginx nginx-light
/usr/sbin/phpenmod php-fpm
ab apache2-utils
Xtigervnc tigervnc-standalone-server
bash bash
cc gcc
curl curl
emacs emacs-nox
erl erlang-base
gdb gdb
java default-jdk-headless
javac default-jdk-headless
make make
mariadb mariadb-client-core
mpirun openmpi-bin
/usr/lib/python3/dist-packages/mpi4py python3-mpi4py
node nodejs
perl perl
pg_ctlcluster postgresql
/usr/bin/python3 python3
redis-cli redis-tools
redis-server redis-server
ruby ruby
screen screen
sqlite3 sqlite3
strace strace
tmux tmux
twm twm
vim vim
xdpyinfo x11-utils
xterm xterm
xwd x11-apps
xz xz-utils
'

missing=$(echo "$needs" | while read -r command package; do
	[ -z "$command" ] || command -v "$command" >/dev/null 2>&1 || echo "$package"
done | sort -u)
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "apps/install.sh: not root; install these packages: $(echo $missing)" >&2
	exit 1
fi

# Nothing that a package would start as a service is wanted: the tests start
# their own. A policy that is there already stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
fi

export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
install() {
	# shellcheck disable=SC2086
	apt-get install -y --no-install-recommends $missing >"$log" 2>&1
}
# The lists may be old, or not there at all.
install || { apt-get update >"$log" 2>&1 && install; } || {
	cat "$log" >&2
	rm -f "$log"
	echo "apps/install.sh: could not install: $(echo $missing)" >&2
	exit 1
}
rm -f "$log"
