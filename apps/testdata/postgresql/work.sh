# A PostgreSQL server and its clients: pgbench over two kinds of sockets, queries
# that are spread over parallel workers, a session in the middle of a transaction.
set -eu -o pipefail
programs=(/usr/lib/postgresql/*/bin)
PATH=${programs[-1]}:$PATH
chown -R postgres .
chmod 700 data
export PGHOST=$PWD PGPORT=7413 PGUSER=postgres PGDATABASE=postgres PGOPTIONS='-c client_min_messages=warning'
query() { psql -X -q -A -t "$@"; }

# Nothing is lost by a death of the machine here, so nothing waits for the disk.
setpriv --reuid=postgres --regid=postgres --init-groups postgres -D "$PWD/data" -k "$PWD" -h 127.0.0.1 -p $PGPORT \
	-c fsync=off -c shared_buffers=16MB -c max_connections=30 \
	-c logging_collector=on -c log_directory="$PWD" -c log_filename=server.log \
	-c log_statement=mod -c log_line_prefix= &
server=$!
until pg_isready -q; do sleep 0.02; done
pgbench -i -q -s 1 2>/dev/null

# One that stays: a cursor half read, a lock, something to listen to.
coproc SESSION { query; }
session=$SESSION_PID
ask() {
	echo "$1" >&"${SESSION[1]}"
	read -r -t 60 answer <&"${SESSION[0]}"
	echo "session: ${answer% from server process*}"
}
{
	echo "LISTEN news;"
	echo "BEGIN; CREATE TEMP TABLE mine AS SELECT i, md5(i::text) AS m FROM generate_series(1, 5000) i;"
	echo "DECLARE half CURSOR FOR SELECT m FROM mine ORDER BY m;"
} >&"${SESSION[1]}"
ask "MOVE 2000 IN half; FETCH half;"
ask "SELECT pg_advisory_lock(42) IS NULL;"

parallel() {
	for ((i = 0; i < 5; i++)); do
		query -c "SET max_parallel_workers_per_gather = 2" -c "SET force_parallel_mode = on" -c "SET parallel_setup_cost = 0" \
			-c "SET min_parallel_table_scan_size = 0" -c "SELECT count(*), sum(aid::bigint * bid), md5(max(filler)) FROM pgbench_accounts"
	done | sort | uniq -c
}
parallel >parallel.out &
reader=$!
bench() {
	pgbench -n "$@" | grep -E '^(transaction type|query mode|number of)'
}
bench -c 4 -j 2 -t 250 --random-seed=7
bench -h 127.0.0.1 -c 3 -j 3 -t 200 -M prepared --random-seed=8
wait $reader
cat parallel.out
query -c "NOTIFY news, 'a word'"
query -c "SELECT 'lock to be had: ' || pg_try_advisory_lock(42)"

ask "FETCH half;"
ask "SELECT count(*) FROM mine;"
ask "COMMIT;"
ask "SELECT pg_advisory_unlock(42);"
eval "exec ${SESSION[1]}>&-"
wait $session || true

query -c "SELECT sum(abalance), count(*) FROM pgbench_accounts" -c "SELECT sum(bbalance) FROM pgbench_branches" \
	-c "SELECT md5(string_agg(tid || ':' || tbalance, ',' ORDER BY tid)) FROM pgbench_tellers" \
	-c "SELECT sum(delta), count(*) FROM pgbench_history" \
	-c "SELECT md5(string_agg(aid || ':' || abalance, ',' ORDER BY aid)) FROM pgbench_accounts"
kill -TERM $server
wait $server
echo "server ended with $?"
grep -E '(WARNING|ERROR|PANIC):|terminated by signal|recovery' server.log || echo no complaints
