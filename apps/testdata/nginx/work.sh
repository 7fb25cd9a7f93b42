# An nginx of two workers under load: connections that last and connections that
# do not, files sent by sendfile, one nginx in front of another, a reload.
set -eu -o pipefail
umask 022
mkdir html
seq 1 30000 >html/large.txt
seq 1 300 >html/small.txt

/usr/sbin/nginx -p "$PWD" -c nginx.conf -e error.log &
server=$!
until curl -sf -o /dev/null http://127.0.0.1:7412/small.txt; do sleep 0.02; done

# What ab counted, without what it timed.
load() {
	ab -q -s 60 "$@" | grep -E '^(Document Path|Document Length|Complete requests|Failed requests|Non-2xx|Keep-Alive requests|HTML transferred)'
}

load -k -c 6 -n 10000 http://127.0.0.1:7412/small.txt
# The large one as its readers get it, at a pace that leaves queues full.
curl -s --limit-rate 64k http://127.0.0.1:7412/large.txt | sha256sum >slow &
reader=$!
load -c 4 -n 3000 'http://[::1]:7412/behind/small.txt'
kill -HUP $server
load -c 8 -n 3000 http://127.0.0.1:7412/small.txt
load -k -c 3 -n 1500 http://127.0.0.1:7412/large.txt
wait $reader
cat slow

kill -QUIT $server
wait $server
echo "server ended with $?"
sort access.log | uniq -c
grep -cE 'signal 1 \(SIGHUP\) received' error.log
grep -E '\[(warn|error|crit|alert|emerg)\]' error.log || echo no complaints
