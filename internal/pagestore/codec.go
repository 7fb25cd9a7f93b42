package pagestore

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// Codec is how the chunks of a file are stored: each by itself, so that any can
// be read without the others. One that does not become smaller is stored as it
// is; its stored length is that of its content then.
type Codec uint32

// The codecs, with the numbers that they have in a manifest.
const (
	Plain Codec = 0
	S2    Codec = 1 // https://github.com/klauspost/compress/tree/master/s2, one block a chunk
	Zstd  Codec = 2 // RFC 8878, one frame a chunk
)

// String gives the codec's name.
func (c Codec) String() string {
	switch c {
	case Plain:
		return "none"
	case S2:
		return "s2"
	case Zstd:
		return "zstd"
	}
	return "codec " + strconv.Itoa(int(c))
}

// Compression is a codec and how much it shall try.
type Compression struct {
	Codec Codec
	Level int // of Zstd: 1 to 22, as the zstd command counts
}

// defaultLevel is the zstd command's own.
const defaultLevel = 3

// ParseCompression reads what people write: none, fast, zstd or zstd:LEVEL.
func ParseCompression(s string) (Compression, error) {
	name, level, has := strings.Cut(s, ":")
	switch {
	case name == "none" && !has:
		return Compression{}, nil
	case name == "fast" && !has:
		return Compression{Codec: S2}, nil
	case name == "zstd" && !has:
		return Compression{Zstd, defaultLevel}, nil
	case name == "zstd":
		if n, err := strconv.Atoi(level); err == nil && n >= 1 && n <= 22 {
			return Compression{Zstd, n}, nil
		}
		return Compression{}, fault.Errorf(fault.ErrUsage, "zstd has levels 1 to 22, not %q", level)
	}
	return Compression{}, fault.Errorf(fault.ErrUsage, "%q is no compression: none, fast, zstd or zstd:LEVEL", s)
}

// CompressionOf tells how a file was stored, as far as it shows.
func CompressionOf(f *fm.StoreFile) Compression {
	c := Compression{Codec: Codec(f.GetCodec())}
	if c.Codec == Zstd {
		c.Level = defaultLevel
	}
	return c
}

// packedChunk is how much content each chunk of a compressed file has: a page on
// demand costs the decoding of one of them.
const packedChunk = 256 << 10

// chunkSize is how much content a chunk has.
func (c Compression) chunkSize() uint64 {
	if c.Codec == Plain {
		return Chunk
	}
	return packedChunk
}

// encoder packs chunks for one goroutine.
type encoder struct {
	c Compression
	z *zstd.Encoder
}

func (e *encoder) close() {
	if e.z != nil {
		e.z.Close()
	}
}

// pack appends a stored chunk to dst.
func (e *encoder) pack(dst, chunk []byte) ([]byte, error) {
	at := len(dst)
	switch e.c.Codec {
	case S2:
		if need := at + s2.MaxEncodedLen(len(chunk)); cap(dst) < need {
			dst = append(make([]byte, 0, need+len(dst)), dst...)
		}
		out := s2.Encode(dst[at:cap(dst)], chunk)
		dst = dst[:at+len(out)]
	case Zstd:
		if e.z == nil {
			var err error
			e.z, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(packedChunk),
				zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(e.c.Level)))
			if err != nil {
				return nil, err
			}
		}
		dst = e.z.EncodeAll(chunk, dst)
	default:
		return nil, fmt.Errorf("packing pages: %v", e.c.Codec)
	}
	if len(dst)-at >= len(chunk) {
		dst = append(dst[:at], chunk...)
	}
	return dst, nil
}

// decoders are shared: a decoder is some hundred kilobytes.
var decoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxChunk), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil
	}
	return d
}}

// unpack decodes a stored chunk into dst, which it must fill.
func unpack(c Codec, dst, stored []byte) error {
	if len(stored) == len(dst) {
		copy(dst, stored)
		return nil
	}
	var out []byte
	var err error
	switch c {
	case S2:
		var n int
		if n, err = s2.DecodedLen(stored); err == nil && n == len(dst) {
			out, err = s2.Decode(dst, stored)
		}
	case Zstd:
		d, _ := decoders.Get().(*zstd.Decoder)
		if d == nil {
			return fmt.Errorf("no zstd decoder")
		}
		out, err = d.DecodeAll(stored, dst[:0])
		decoders.Put(d)
	default:
		return fmt.Errorf("%v is not known here", c)
	}
	switch {
	case err != nil:
		return err
	case len(out) != len(dst) || len(dst) > 0 && &out[0] != &dst[0]:
		return fmt.Errorf("%d bytes unpacked where %d were packed", len(out), len(dst))
	}
	return nil
}
