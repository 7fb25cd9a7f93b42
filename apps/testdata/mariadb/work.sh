# A MariaDB server and clients that change one table at the same time. It does its
# file requests through io_uring, in which threads of it sleep.
set -eu -o pipefail
chown -R nobody .
sql() { mariadb --no-defaults --user=root --batch --skip-column-names "$@"; }
here="--socket=$PWD/mariadb.sock"
there="--protocol=tcp --host=127.0.0.1 --port=7414"

/usr/sbin/mariadbd --no-defaults --user=nobody --datadir="$PWD/data" --socket="$PWD/mariadb.sock" \
	--bind-address=127.0.0.1 --port=7414 --pid-file="$PWD/mariadb.pid" \
	--innodb-log-file-size=8M --innodb-use-native-aio=1 --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=0 \
	--general-log=1 --general-log-file="$PWD/general.log" 2>server.log &
server=$!
until sql $here -e 'SELECT 1' >/dev/null 2>&1; do sleep 0.05; done

sql $here <<'EOF'
CREATE DATABASE work;
USE work;
CREATE TABLE account (id INT PRIMARY KEY, balance BIGINT NOT NULL DEFAULT 0, note VARCHAR(64), KEY (note)) ENGINE=InnoDB;
CREATE TABLE history (who INT, n INT, delta INT, PRIMARY KEY (who, n)) ENGINE=InnoDB;
CREATE TABLE tally (id INT PRIMARY KEY, n INT) ENGINE=Aria;
INSERT INTO account (id, note) SELECT seq, MD5(seq) FROM seq_1_to_5000;
INSERT INTO tally VALUES (1, 0);
GRANT ALL ON work.* TO 'root'@'127.0.0.1';
EOF

# The statements of one client, all of them of one connection.
changes() {
	for ((i = 1; i <= 400; i++)); do
		d=$((($1 * 7919 + i * 104729) % 2001 - 1000))
		echo "BEGIN; UPDATE account SET balance = balance + $d, note = MD5(CONCAT(note, $1)) WHERE id = $(($1 * 1000 + i % 300));"
		echo "INSERT INTO history VALUES ($1, $i, $d); COMMIT; UPDATE tally SET n = n + 1;"
		((i % 50)) || echo "SELECT 'client $1', COUNT(*), SUM(delta) FROM history WHERE who = $1;"
	done
}
for c in 1 2 3 4; do
	((c % 2)) && to=$here || to=$there
	changes $c | sql $to work >client.$c &
	clients="${clients-} $!"
done
for c in $clients; do wait "$c"; done
cat client.1 client.2 client.3 client.4

sql $here work <<'EOF'
SELECT SUM(balance), COUNT(*) FROM account;
SET SESSION group_concat_max_len = 10000000;
SELECT MD5(GROUP_CONCAT(id, ':', balance, ':', note ORDER BY id)) FROM account;
SELECT who, COUNT(*), SUM(delta) FROM history GROUP BY who ORDER BY who;
SELECT n FROM tally;
CHECK TABLE account, history, tally;
SHUTDOWN;
EOF
wait $server
echo "server ended with $?"
grep -F '[ERROR]' server.log || echo no complaints
