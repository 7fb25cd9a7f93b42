// Package track follows which pages a program writes from one checkpoint to the
// next, so that the next one saves these alone.
//
// Each address space has a userfaultfd (userfaultfd(2)) that its task made and no
// longer holds, enabled with UFFD_FEATURE_WP_ASYNC (Linux 6.7): pages of areas that
// are registered with it are write-protected, the first write to one makes the
// kernel lift that by itself, without telling anybody, and PAGEMAP_SCAN
// (Documentation/admin-guide/mm/pagemap.rst) says which pages were written since.
//
// A page counts as unwritten only where the kernel says of it, in one scan, that its
// area is registered so (PAGE_IS_WPALLOWED), that it is protected (not
// PAGE_IS_WRITTEN), that it is a page of the task's own; where registering the area
// anew with our userfaultfd succeeds (EBUSY: another one's); and where that
// userfaultfd was seen to act on this very address space (Space.Acts). Whatever the
// program does to its memory meanwhile errs on the safe side:
//
//   - new areas, and what mremap(2) moved, are not registered (the kernel takes
//     areas out when they move, as long as nobody has asked for events);
//   - a page that came anew, at whatever address, is not protected: after munmap,
//     MADV_DONTNEED, MADV_FREE, in an area that has grown;
//   - the copy of a fork, and what execve puts in place, are not registered.
//
// So only anonymous private memory is tracked. Not tracked are
//
//   - private mappings of files: the kernel remembers the protection of a page that
//     is thrown away (a marker, mm/memory.c: zap_install_uffd_wp_if_needed), and a
//     copy that a write makes is protected until the write is repeated: for an
//     instant it is unwritten and new;
//   - shared memory, which is written through other descriptors and by processes
//     that have come and gone;
//   - huge pages of hugetlbfs, which have such markers too;
//   - address spaces with contexts of Linux AIO: a request under way writes to
//     pages that it has pinned, without any page table.
//
// Who holds the userfaultfds keeps the tracking alive: this process, and between
// checkpoints a keeper, a process of some kilobytes that sleeps until the program
// has ended. When the last descriptor goes, the kernel lifts all protection; the
// program only becomes as it was.
package track
