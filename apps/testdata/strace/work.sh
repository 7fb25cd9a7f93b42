# A shell with children by the dozen, for strace to follow.
set -u
n=0
trap '((n += 1))' USR1
for ((i = 0; i < 46; i++)); do
	echo "line $i"
	(
		cd /usr
		exec >&2
		echo "sub $i"
		exit $((i % 7))
	)
	echo "status $?"
	echo "$i" | cat | tr 0-9 a-j
	sleep 0.01 &
	kill -USR1 $$
	wait $!
	echo "$i" >>progress
done
echo "$n signals"
exit 0
