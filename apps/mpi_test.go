package apps

// Open MPI on one host: mpirun with its daemon's sockets and pseudo-terminals,
// three ranks that exchange blocks through memory they share and by reading each
// other's, then three that do it over TCP. The digests of what they computed are
// the result.
var _ = register(&App{
	Name:    "mpi",
	Needs:   []Need{{"mpirun", "openmpi-bin"}},
	Command: []string{"bash", "work.sh"},
})
