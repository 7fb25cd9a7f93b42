# Three ranks that exchange blocks: point to point in both directions at once,
# collectives, a window into each other's memory.
import hashlib
import sys
from array import array

from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
progress = open("progress", "a", buffering=1) if rank == 0 else None

mine = array("q", range(rank, 40000 + rank))
other = array("q", bytes(8 * len(mine)))
small = array("q", [0])
window = MPI.Win.Allocate(8 * size, 8, comm=comm)
digest = hashlib.sha256()
for turn in range(int(sys.argv[1])):
    right, left = (rank + 1) % size, (rank - 1) % size
    wanted = comm.Irecv([other, MPI.INT64_T], source=left, tag=turn)
    comm.Send([mine, MPI.INT64_T], dest=right, tag=turn)
    wanted.Wait()
    for i in range(turn % 7, len(mine), 7):
        mine[i] = (mine[i] * 31 + other[i] + turn) % 1000003
    total = comm.allreduce(sum(mine))
    window.Fence()
    small[0] = total + rank
    window.Put([small, MPI.INT64_T], right, rank)
    window.Fence()
    every = comm.gather(hashlib.sha256(mine.tobytes()).hexdigest())
    digest.update(f"{total} {bytes(window.tomemory())}".encode())
    if rank == 0:
        digest.update(" ".join(every).encode())
        print("turn", turn, total, file=progress)
for r in range(size):
    comm.Barrier()
    if r == rank:
        print("rank", rank, "of", size, digest.hexdigest(), flush=True)
window.Free()
