package journal

import (
	"errors"
	"os"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWhatIsOwed(t *testing.T) {
	j, err := New(4711)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(j.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	a := j.Add(Region, 1, 2, 3, 4)
	b := j.AddText(Draft, "/a/b\x00/a/c")
	c := j.Add(Stop, 7)
	a.Done()
	b.Set(0, 8)
	d := j.Add(Lent, 9, 9) // takes a's place
	if !j.Owing() {
		t.Error("nothing owed")
	}
	_, _ = c, d
	j.Patience(1500 * time.Millisecond)
	j.Close()
	book, err := Read(fd)
	if err != nil {
		t.Fatal(err)
	}
	want := []Record{
		{Kind: Lent, V: [6]uint64{9, 9}},
		{Kind: Draft, V: [6]uint64{8}, Text: "/a/b\x00/a/c"},
		{Kind: Stop, V: [6]uint64{7}},
	}
	if book.Writer != 4711 || !reflect.DeepEqual(book.Records, want) {
		t.Errorf("%+v", book)
	}
	if beat, p, err := Pulse(fd); beat != 1 || p != 1500*time.Millisecond || err != nil {
		t.Error(beat, p, err)
	}
	if k, err := New(1); err != nil {
		t.Error(err)
	} else {
		k.Add(Target, 1)
		e := k.Add(Stop, 1)
		e.Done()
		if k.Owing() {
			t.Error("something owed when all is paid")
		}
		k.Close()
	}
	// After the end, and where there is none, notes go nowhere.
	d.Done()
	c.Set(0, 1)
	j.Beat()
	if e := j.Add(Stop); e != nil {
		t.Error("an entry in a closed journal")
	}
	var none *Journal
	none.Add(Stop).Done()
	none.Close()
}

// TestFull: entries that find no room are not noted, and harm nothing.
func TestFull(t *testing.T) {
	j, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var last *Entry
	for range maxEntries {
		last = j.Add(Stop, 5)
	}
	if j.Add(Stop) != nil {
		t.Error("room for one too many")
	}
	last.Done()
	// Texts that come and go take no room.
	text := string(make([]byte, textSize/2+1))
	for range 3 {
		e := j.AddText(Link, text)
		if e == nil {
			t.Fatal("no room for a text")
		}
		if j.AddText(Link, text) != nil {
			t.Fatal("room for two")
		}
		e.Done()
	}
	if j.Add(Doom, 6) == nil {
		t.Error("no room where one was crossed out")
	}
	if b, err := Read(j.FD()); err != nil || len(b.Records) != maxEntries || len(b.Of(Doom)) != 1 {
		t.Error(len(b.Records), err)
	}
}

func TestNoJournal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Read(int(f.Fd())); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(int(f.Fd())); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}
