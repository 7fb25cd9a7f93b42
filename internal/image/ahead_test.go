package image_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// TestEncodeAhead changes an image in every way after its encoding has begun.
func TestEncodeAhead(t *testing.T) {
	file := func(name string) *fm.StoreFile { return &fm.StoreFile{Name: proto.String(name)} }
	for _, c := range []struct {
		name  string
		after func(*image.Image)
	}{
		{"nothing", func(*image.Image) {}},
		{"a new part", func(im *image.Image) { im.Add("c", file("5")) }},
		{"a record of a part that was there", func(im *image.Image) { im.Add("a", file("5")) }},
		{"a part less", func(im *image.Image) { im.Drop("a") }},
		{"a part replaced", func(im *image.Image) { im.Replace("b", file("5")) }},
	} {
		encode := func(ahead bool) []byte {
			im := image.New()
			im.Add("a", file("1"), 'x')
			im.Add("b", file("2"))
			im.Add("a", file("3"))
			if ahead {
				im.EncodeAhead(func(string) bool { return false })
			}
			c.after(im)
			b, err := im.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := image.Decode(b); err != nil {
				t.Fatal(err)
			}
			return b
		}
		if !bytes.Equal(encode(true), encode(false)) {
			t.Errorf("%s: encoded differently", c.name)
		}
	}
}
