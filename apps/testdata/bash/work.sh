# A script as people write them: pipelines, background jobs, traps, process
# substitution, a coprocess, here-documents, wait -n, arithmetic.
set -eu -o pipefail
trap 'echo "exit trap: $usr1 signals"' EXIT
usr1=0
trap 'usr1=$((usr1 + 1))' USR1
trap '' HUP

: >progress

# A background job that works alone and tells us by a signal when it is half way.
(
	trap 'echo "job told to end" >>jobs; exit 7' TERM
	n=0
	while ((n < 20000)); do
		n=$((n + 1))
		((n != 10000)) || kill -USR1 $$
	done
	echo "job counted to $n" >>jobs
	while :; do sleep 0.05; done
) &
job=$!

# A coprocess that answers.
coproc ANSWER { while read -r a b; do echo $((a * b % 9973)); done; }

# A pipeline in the background that a FIFO feeds.
mkfifo queue
sort -n <queue | uniq -c | awk '{ s += $1 * $2 } END { print "queue", NR, s }' >sums &
exec 5>queue

# A trapped signal ends a wait early, with its number: wait again then.
await() {
	local status=200
	while ((status > 128)); do
		status=0
		wait "$1" || status=$?
	done
	return $status
}

collatz() {
	local n=$1 steps=0
	while ((n != 1)); do
		n=$((n % 2 ? 3 * n + 1 : n / 2))
		steps=$((steps + 1))
	done
	echo $steps
}

# The main work: each round forks, pipes and waits.
total=0
for round in {1..80}; do
	steps=$(collatz $((round * 7919)))
	echo "$round $steps" >&"${ANSWER[1]}"
	read -r answer <&"${ANSWER[0]}"
	for i in 1 2 3; do echo $(((round * i * answer) % 500)); done >&5
	(exit $((round % 5))) &
	status=0
	await $! || status=$?
	words=$(seq $((round * 20)) | grep -c 7 | tr -d '\n' | cat)
	while read -r line; do total=$((total + line)); done < <(seq $round | sed -n '1~3p')
	total=$((total + steps + answer + status + words))
	echo "$round" >>progress
	sleep 0.005
done
exec 5>&-
echo "total $total"

# The traps and jobs at the end.
while ((usr1 == 0)); do sleep 0.05; done
until [[ -s jobs ]]; do sleep 0.05; done
kill -TERM $job
status=0
await $job || status=$?
echo "job ended with $status"
eval "exec ${ANSWER[1]}>&-"
wait
cat sums jobs
