package apps

// Perl: an interpreter at text work with a ticking alarm, a forked worker on a
// socket pair, and commands on pipes.
var _ = register(&App{
	Name:    "perl",
	Short:   true,
	Needs:   []Need{{"perl", "perl"}},
	Command: []string{"perl", "work.pl"},
})
