package apps

// Bash: pipelines, background jobs, traps, a coprocess and a FIFO, a new process
// every few milliseconds: checkpoints fall anywhere between fork and exec, exit
// and wait.
var _ = register(&App{
	Name:    "bash",
	Short:   true,
	Needs:   []Need{{"bash", "bash"}},
	Command: []string{"bash", "work.sh"},
})
