# PHP behind nginx, as a web site runs it: a pool of processes that are replaced
# after some requests, and clients that each have a session.
set -eu -o pipefail
umask 022
mkdir sessions
chown www-data sessions
fpm=(/usr/sbin/php-fpm[0-9]*)
"${fpm[-1]}" -p "$PWD" -y fpm.conf &
pool=$!
until grep -q 'ready to handle connections' fpm.log 2>/dev/null; do sleep 0.02; done
/usr/sbin/nginx -p "$PWD" -c nginx.conf -e error.log &
front=$!
until curl -sf -o /dev/null 'http://127.0.0.1:7417/?who=first&i=0'; do sleep 0.05; done

seq 1 4000 >sent
client() {
	for ((i = 0; i < 220; i++)); do
		echo "url = \"http://127.0.0.1:7417/?who=$1&i=$i\""
	done | curl -s --fail-with-body --data-binary @sent -K -
}
for c in ann bob eve; do
	client $c >client.$c &
	clients="${clients-} $!"
done
for c in $clients; do wait "$c"; done
for c in ann bob eve; do
	wc -l <client.$c
	sha256sum client.$c
	tail -1 client.$c
done

kill -QUIT $front
wait $front
kill -QUIT $pool
wait $pool
grep -v who=first access.log | sort | uniq -c | sort -k1n,1 | sha256sum
grep -E 'WARNING|ERROR' fpm.log || echo no complaints
grep -E '\[(warn|error|crit|alert|emerg)\]' error.log || echo no complaints
