# An MPI job over shared memory, and one over TCP.
set -eu
run() {
	mpirun --allow-run-as-root --oversubscribe --bind-to none -n 3 --mca btl_base_warn_component_unused 0 \
		--mca mpi_yield_when_idle 1 "$@" | sort
}
run --mca btl vader,self /usr/bin/python3 work.py 80
run --mca btl tcp,self --mca btl_tcp_if_include lo /usr/bin/python3 work.py 50
