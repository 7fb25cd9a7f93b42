package conformance

import (
	"fmt"
	"slices"
	"strings"
)

// Coverage renders docs/coverage.md from the programs' headers, and what the
// peers did with them.
func Coverage(all []*Program, peers *Peers) string {
	var b strings.Builder
	b.WriteString(`# What is covered

Generated from the headers of conformance/programs/*.c by ` + "`go generate ./conformance`" + `; don't edit.

Each program sets up the state of its line, is checkpointed and killed,
restored, and then finds its state as it was or fails. It is run in these modes:
**restore** (checkpoint, kill, restore), **left** (checkpointed and left running,
with and without a snapshot of its memory), **snapshot** (restored from a
checkpoint that came from a snapshot), **twice** (the restored program is
checkpointed and restored again), **user** (checkpointed and restored by nobody
himself, into namespaces of his own) and **mutate** (the parts in the last column
are taken out of the image, one after the other: the program must then fail, or
the restore be refused).
The harness also compares what can be seen from outside (memory map,
descriptors, status, limits, ids) before and after.

What the peers do with the same programs was recorded once, on one machine;
[comparison.md](comparison.md) says on which, and why they fail.

`)
	kinds := map[string][]*Program{}
	refused := 0
	var names []string
	for _, p := range all {
		if kinds[p.Kind] == nil {
			names = append(names, p.Kind)
		}
		kinds[p.Kind] = append(kinds[p.Kind], p)
		if p.Refused != "" {
			refused++
		}
	}
	slices.Sort(names)
	fmt.Fprintf(&b, "%d programs: %d kinds of state brought back, %d refused by name.\n", len(all), len(all)-refused, refused)
	for _, k := range names {
		fmt.Fprintf(&b, "\n## %s\n\n", k)
		b.WriteString("| program | state | users | fermata | CRIU | DMTCP | proven by taking out |\n| --- | --- | --- | --- | --- | --- | --- |\n")
		for _, p := range kinds[k] {
			if p.Refused != "" {
				continue
			}
			fmt.Fprintf(&b, "| [%s](../conformance/programs/%s.c) | %s | %s | works | %s | %s | %s |\n", p.Name, p.Name, cell(p.State), users(p), peers.verdict(p.Name, "CRIU"), peers.verdict(p.Name, "DMTCP"), mutations(p))
		}
		first := true
		for _, p := range kinds[k] {
			if p.Refused == "" {
				continue
			}
			if first {
				b.WriteString("\nRefused, with the program unharmed:\n\n| program | state | users | the refusal says |\n| --- | --- | --- | --- |\n")
				first = false
			}
			fmt.Fprintf(&b, "| [%s](../conformance/programs/%s.c) | %s | %s | %s |\n", p.Name, p.Name, cell(p.State), users(p), cell(p.Refused))
		}
	}
	return b.String()
}

func users(p *Program) string {
	s := strings.Join(p.Users, ", ")
	switch {
	case p.UserWhy != "":
		s += " (" + cell(p.UserWhy) + ")"
	case p.User != "":
		s += "; nobody himself is refused (" + cell(p.User) + ")"
	case p.NoUser != "":
		s += "; not tried by nobody himself (" + cell(p.NoUser) + ")"
	}
	return s
}

func mutations(p *Program) string {
	m := make([]string, len(p.Mutate))
	for i, s := range p.Mutate {
		m[i] = "`" + s + "`"
	}
	return strings.Join(m, ", ")
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
