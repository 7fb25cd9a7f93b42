package resource

// kernelLargefile is the kernel's own O_LARGEFILE, which every open(2) of a
// 64-bit task sets (arch/arm64/include/uapi/asm/fcntl.h).
const kernelLargefile = 0o400000
