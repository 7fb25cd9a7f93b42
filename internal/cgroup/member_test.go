package cgroup

import (
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// version2 opens the hierarchy and gives the name of a group in it that is not
// there and goes away with the test.
func version2(t *testing.T) (*Hierarchy, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make groups")
	}
	h, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	group := fmt.Sprintf("/fermata-test-%d", os.Getpid())
	t.Cleanup(func() {
		for _, g := range []string{group + "/a/b", group + "/a", group} {
			_ = unix.Unlinkat(h.root, strings.TrimPrefix(g, "/"), unix.AT_REMOVEDIR)
		}
		h.Close()
	})
	return h, group
}

func TestGroupsAreMadeAgain(t *testing.T) {
	h, group := version2(t)
	for _, g := range []string{group, group + "/a", group + "/a/b"} {
		if err := unix.Mkdirat(h.root, strings.TrimPrefix(g, "/"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"cgroup.max.depth": "7", "cgroup.max.descendants": "9"}
	for k, v := range want {
		if err := h.write(path.Join(rel(group), k), v); err != nil {
			t.Fatal(err)
		}
	}
	h.own(rel(group)+"/a", perms(h.root, "")) // not what a new one has by itself
	if err := unix.Fchownat(h.root, rel(group)+"/a", 12, 34, 0); err != nil {
		t.Fatal(err)
	}
	saved, err := h.Save(group, strings.TrimPrefix(group, "/"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []string{group + "/a/b", group + "/a", group} {
		if err := unix.Unlinkat(h.root, rel(g), unix.AT_REMOVEDIR); err != nil {
			t.Fatal(err)
		}
	}
	if h.Has(group) {
		t.Fatal("still there")
	}
	notes, err := h.Make("/", saved, false)
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	for k, v := range want {
		if got, err := h.read(path.Join(rel(group), k)); err != nil || got != v {
			t.Errorf("%s is %q (%v), want %q", k, got, err, v)
		}
	}
	again, err := h.Save(group, strings.TrimPrefix(group, "/"))
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(saved, again) {
		t.Errorf("made again it is\n%v\nwas\n%v", again, saved)
	}
	// What is there stays as it is, unless it is to be as it was.
	if err := h.write(path.Join(rel(group), "cgroup.max.depth"), "3"); err != nil {
		t.Fatal(err)
	}
	for _, force := range []bool{false, true} {
		if _, err := h.Make("/", saved, force); err != nil {
			t.Fatal(err)
		}
		if got, _ := h.read(path.Join(rel(group), "cgroup.max.depth")); got != map[bool]string{false: "3", true: "7"}[force] {
			t.Errorf("with force=%v the depth is %s", force, got)
		}
	}
}

func TestMove(t *testing.T) {
	h, group := version2(t)
	if err := h.Move(group, os.Getpid()); err == nil {
		t.Fatal("moved into a group that is not there")
	}
	if h.Has("/../..") {
		t.Error("found what is outside of the hierarchy")
	}
	if _, err := Open("no-such-controller"); err == nil {
		t.Error("opened a hierarchy of no controller")
	}
}
