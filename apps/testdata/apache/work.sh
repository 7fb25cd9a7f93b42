# An Apache of processes that answer one request each at a time, under load:
# files, programs that it starts for a request, a graceful restart.
set -eu -o pipefail
umask 022
mkdir html cgi
seq 1 20000 >html/large.txt
seq 1 300 >html/small.txt
cat >cgi/sum.sh <<'EOF'
#!/bin/bash
n=0
while read -r i; do ((n += i)); done
printf 'Content-Type: text/plain\r\n\r\n%s %s\n' "$QUERY_STRING" $n
EOF
chmod 755 cgi/sum.sh
at=http://127.0.0.1:7418

export PWD
# In the end it ends its whole process group.
setsid /usr/sbin/apache2 -d "$PWD" -f "$PWD/apache.conf" -DFOREGROUND &
server=$!
until curl -sf -o /dev/null $at/small.txt; do sleep 0.05; done

# What ab counted, without what it timed.
load() {
	ab -q -s 60 "$@" | grep -E '^(Document Path|Document Length|Complete requests|Failed requests|Non-2xx|HTML transferred)'
}
seq 1 2000 >sent
post() {
	for ((i = 0; i < 25; i++)); do
		curl -s --fail-with-body --data-binary @sent "$at/cgi/sum.sh?$1-$i"
	done | sha256sum
}
post one >one &
posts=$!
load -c 5 -n 2000 $at/small.txt
load -c 3 -n 800 'http://[::1]:7418/large.txt'
wait $posts
cat one
curl -s --limit-rate 64k $at/large.txt | sha256sum >slow &
reader=$!
kill -USR1 $server
post two >two &
posts=$!
load -c 5 -n 2000 $at/small.txt
wait $posts $reader
cat slow
cat two

kill -WINCH $server
wait $server
echo "server ended with $?"
sort access.log | uniq -c | grep -vE 'cgi|OPTIONS'
grep -c 'resuming normal operations' error.log
grep -E ':(warn|error|crit|alert|emerg)\]' error.log || echo no complaints
