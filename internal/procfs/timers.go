package procfs

// Timer is one POSIX timer in /proc/PID/timers (CONFIG_CHECKPOINT_RESTORE).
type Timer struct {
	ID      int
	Signal  int
	Sigval  uint64 // sigev_value
	Notify  int    // SIGEV_SIGNAL 0, SIGEV_NONE 1 or SIGEV_THREAD 2, without SIGEV_THREAD_ID
	ToTID   bool   // SIGEV_THREAD_ID: Target is a thread, else a process
	Target  int    // who gets the signal; 0 when it has ended
	ClockID int
}

// ReadTimers gives the POSIX timers of a process in the kernel's order.
func ReadTimers(pid int) ([]Timer, error) {
	return parseFile(pid, 0, "timers", stream, ParseTimers)
}

// ParseTimers parses /proc/PID/timers: four lines a timer, of which the first
// is its ID.
func ParseTimers(b []byte) ([]Timer, error) {
	var out []Timer
	var t *Timer
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		s := scanner{b: line}
		if s.prefix("ID:") {
			out = append(out, Timer{})
			t = &out[len(out)-1]
			s.blanks()
			t.ID = s.int()
		} else if t == nil {
			return nil, badLine("timers", line)
		} else if s.prefix("signal:") {
			s.blanks()
			t.Signal = s.int()
			s.lit('/')
			s.prefix("0x")
			t.Sigval = s.hex()
		} else if s.prefix("notify:") {
			s.blanks()
			switch string(s.until('/')) {
			case "signal":
				t.Notify = 0
			case "none":
				t.Notify = 1
			case "thread":
				t.Notify = 2
			default:
				s.bad = true
			}
			switch string(s.until('.')) {
			case "tid":
				t.ToTID = true
			case "pid":
			default:
				s.bad = true
			}
			t.Target = s.int()
		} else if s.prefix("ClockID:") {
			s.blanks()
			t.ClockID = s.int()
		} else {
			continue
		}
		if s.bad || !s.done() {
			return nil, badLine("timers", line)
		}
	}
	return out, nil
}
