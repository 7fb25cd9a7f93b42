// Package pagestore keeps the pages of a checkpoint: plain files of page
// contents, one address space of offsets over all of them, with a CRC-32C for
// every chunk. Plain files can be mapped as they are. A checkpoint that builds
// upon another has that one's files, too, before its own.
package pagestore

// Chunk is how many bytes one checksum covers. It fits the second-level cache,
// so that summing and copying read memory once.
const Chunk = 1 << 20

// Zero is where there is no content: offsets from it on are those of zeros. A
// page that has nothing else lies at Zero + its address, so that neighbours have
// neighbouring offsets and equal addresses equal ones.
const Zero = 1 << 62

// Below is where the files of the parent are while a checkpoint is being made,
// when it is not known yet which of them will belong to it: Below + the offset
// in the parent's store. No finished checkpoint has such offsets.
const Below = 1 << 61

// again is where pages are whose content is that of another page to be written,
// until it is known where that one comes to lie: again + its offset.
const again = 1 << 60

// Source fills b with the store's bytes from off on; it is called from several
// goroutines at once.
type Source func(off uint64, b []byte) error

// splitAbove is the size from which on a store has two files: two writers of
// one file wait for each other's lock.
const splitAbove = 8 << 20

// Layout divides a total of bytes among writers, each with a file of its own.
func Layout(total uint64) []uint64 {
	if total == 0 {
		return nil
	}
	if total < splitAbove {
		return []uint64{total}
	}
	half := (total/2 + Chunk - 1) &^ (Chunk - 1)
	return []uint64{half, total - half}
}
