package resource

// kernelLargefile is the kernel's own O_LARGEFILE, which every open(2) of a
// 64-bit task sets (include/uapi/asm-generic/fcntl.h).
const kernelLargefile = 0o100000
