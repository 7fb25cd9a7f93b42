# An X server without a screen, a window manager, two programs and a terminal. What
# is on the screen changes when a file "go-N" appears, up to the file "end".
set -eu
export DISPLAY=:77
# The abstract name of its socket, which a network namespace has to itself, and no
# lock in /tmp.
Xtigervnc :77 -nolock -nolisten unix -nolisten tcp -rfbport -1 -SecurityTypes None -ac -geometry 480x360 -depth 24 -br >server.log 2>&1 &
server=$!
until xdpyinfo >/dev/null 2>&1; do sleep 0.05; done
twm -f twmrc &
wm=$!
until xprop -root WM_STATE _MOTIF_WM_INFO __SWM_VROOT >/dev/null 2>&1; do sleep 0.05; done
# One after the other, so that all is in the same place in each run.
managed() { until xprop -name "$1" WM_STATE 2>/dev/null | grep -q Normal; do sleep 0.05; done; }
xlogo -geometry 80x80+10+20 &
logo=$!
managed xlogo
xeyes -geometry 80x60+10+150 &
eyes=$!
managed xeyes
cat >inside.sh <<'IN'
stty -echo
i=0
while [ ! -e end ]; do
	if [ -e "go-$i" ]; then
		printf '\033[%dmline %d of the terminal\033[0m\n' $((31 + i % 6)) "$i"
		# The terminal answers where its cursor is when it has come so far.
		printf '\033[6n'
		IFS= read -rs -d R at
		: >"done-$i"
		i=$((i + 1))
	fi
	sleep 0.02
done
IN
xterm -fn fixed -geometry 40x10+120+60 -title shell -e bash inside.sh
kill $eyes $logo $wm
wait $eyes $logo $wm || true
kill $server
wait $server || echo "the server ended with $?"
