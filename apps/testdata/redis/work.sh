# A redis server of a hundred thousand keys, and what its users do to it.
set -eu -o pipefail
cli() { redis-cli -s "$PWD/redis.sock" "$@"; }

redis-server --port 7411 --bind 127.0.0.1 --unixsocket "$PWD/redis.sock" --save '' --appendonly no \
	--enable-debug-command local --hz 50 --dir "$PWD" >server.log &
server=$!
: >progress
until [[ $(cli ping 2>/dev/null) == PONG ]]; do sleep 0.02; done

# Ten thousand keys at a time, through one pipe.
for part in {0..9}; do
	for ((i = part * 10000; i < part * 10000 + 10000; i++)); do
		echo "SET key:$i value-$((i * 7919 % 100003))"
	done | cli --pipe >/dev/null
	echo "loaded $part" >>progress
done
[[ $(cli dbsize) == 100000 ]]

# Changes over TCP by one client that stays connected, and others that come and go.
coproc CLIENT { redis-cli -p 7411; }
client=$CLIENT_PID
for round in {1..60}; do
	echo "EVAL \"for i = 1, 200 do redis.call('HINCRBY', KEYS[1], i % 17, i * ARGV[1]) end return redis.call('HLEN', KEYS[1])\" 1 hash $round" >&"${CLIENT[1]}"
	read -r answer <&"${CLIENT[0]}"
	[[ $answer == 17 ]]
	cli lpush list "$round" >/dev/null
	cli incrby sum "$(cli get key:$((round * 1000)) | tr -dc 0-9)" >/dev/null
	cli expire "key:$round" 100000 >/dev/null
	cli persist "key:$round" >/dev/null
	echo "round $round" >>progress
done
eval "exec ${CLIENT[1]}>&-"
wait "$client" || true

cli debug digest
cli dbsize
cli get sum
cli shutdown nosave
wait $server
echo "server ended with $?"
