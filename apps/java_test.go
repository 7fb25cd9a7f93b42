package apps

// Java: a virtual machine with compiler and collector threads, code made at run
// time in reserved areas, safepoint pages, a child process.
var _ = register(&App{
	Name:    "java",
	Needs:   []Need{{"java", "default-jdk-headless"}, {"javac", "default-jdk-headless"}},
	Command: []string{"java", "-Xmx256m", "-cp", ".", "Work"},
	Prepare: func(s *stage) { s.command("javac", "Work.java") },
})
