# Two Erlang nodes and the daemon that they find each other by.
set -eu
erlc work.erl
# The nodes' names need no server, their heartbeat no hurry: a busy machine is slow.
export ERL_EPMD_PORT=7419 ERL_EPMD_ADDRESS=127.0.0.1
node() {
	erl -noshell -setcookie work -kernel net_ticktime 120 -start_epmd false "$@"
}
epmd -port 7419 &
epmd=$!
until epmd -port 7419 -names >/dev/null 2>&1; do sleep 0.02; done
node -name answer@127.0.0.1 -s work answer &
answer=$!
node -name ask@127.0.0.1 -s work ask
wait $answer
echo "the other node ended with $?"
kill $epmd
wait $epmd || true
