// Package manpage turns the command's own description of its verbs into manual
// pages (man(7)), so that help and manual cannot say different things.
package manpage

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Common is what stands at the end of every page.
type Common struct {
	ExitStatus  []Item
	Environment []Item
}

// Item is a term and its explanation.
type Item struct{ Term, Text string }

// All renders the pages of a command and all its visible verbs, by file name
// ("fermata-restore.1"). Pages carry no date and no version: they change only
// when their text does.
func All(root *cobra.Command, common Common) map[string][]byte {
	pages := map[string][]byte{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		c.InitDefaultHelpFlag()
		pages[name(c)+".1"] = page(c, common)
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
				walk(sub)
			}
		}
	}
	walk(root)
	return pages
}

// name gives a page's name: "fermata-restore".
func name(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// page renders one command.
func page(c *cobra.Command, common Common) []byte {
	r := &roff{}
	r.line(`.\" Generated from the command's own help; do not edit.`)
	r.line(".nh") // no hyphenation: commands are to be copied
	r.line(`.TH "%s" "1" "" "fermata" "User Commands"`, strings.ToUpper(name(c)))
	r.section("NAME")
	r.line(`%s \- %s`, escape(name(c)), escape(lower(c.Short)))
	if c.Runnable() {
		r.section("SYNOPSIS")
		r.line(`\fB%s\fR%s`, escape(c.CommandPath()), escape(strings.TrimPrefix(c.UseLine(), c.CommandPath())))
	}
	r.section("DESCRIPTION")
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	r.prose(text)
	if c.HasAvailableSubCommands() {
		r.section("VERBS")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				r.item(sub.Name(), sub.Short+".")
			}
		}
	}
	r.flags(c.NonInheritedFlags())
	if c.Example != "" {
		r.section("EXAMPLES")
		r.example(c.Example)
	}
	if !c.IsAdditionalHelpTopicCommand() {
		r.items("EXIT STATUS", common.ExitStatus)
	}
	r.items("ENVIRONMENT", common.Environment)
	r.section("SEE ALSO")
	r.line("%s", strings.Join(related(c), ",\n"))
	return r.b.Bytes()
}

// related lists the other pages of the family.
func related(c *cobra.Command) []string {
	var out []string
	for _, sub := range append([]*cobra.Command{c.Root()}, c.Root().Commands()...) {
		if sub != c && (sub == c.Root() || sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand()) {
			out = append(out, fmt.Sprintf(`\fB%s\fR(1)`, escape(name(sub))))
		}
	}
	return out
}

// roff collects a page.
type roff struct{ b bytes.Buffer }

func (r *roff) line(format string, a ...any) { fmt.Fprintf(&r.b, format+"\n", a...) }

func (r *roff) section(title string) { r.line(".SH %s", title) }

func (r *roff) item(term, text string) {
	r.line(".TP\n\\fB%s\\fR\n%s", escape(term), escape(text))
}

func (r *roff) items(title string, items []Item) {
	if len(items) == 0 {
		return
	}
	r.section(title)
	for _, i := range items {
		r.item(i.Term, i.Text)
	}
}

// prose renders paragraphs; those with indented lines stay as they are.
func (r *roff) prose(text string) {
	for i, p := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if i > 0 {
			r.line(".PP")
		}
		if strings.HasPrefix(p, " ") || strings.Contains(p, "\n ") {
			r.line(".nf\n%s\n.fi", escape(p))
		} else {
			r.line("%s", escape(p))
		}
	}
}

// example renders commands with the comments between them.
func (r *roff) example(text string) {
	r.line(".nf\n%s\n.fi", escape(text))
}

// flags renders the options.
func (r *roff) flags(set *pflag.FlagSet) {
	if !set.HasAvailableFlags() {
		return
	}
	r.section("OPTIONS")
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		head := `\fB` + escape("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			head = `\fB` + escape("-"+f.Shorthand) + `\fR, ` + head
		}
		if value != "" {
			head += ` \fI` + escape(value) + `\fR`
		}
		switch f.DefValue {
		case "", "false", "0", "[]":
		default:
			usage += " (default " + f.DefValue + ")"
		}
		r.line(".TP\n%s\n%s", head, escape(upper(usage)+"."))
	})
}

// escape makes text safe for roff: backslashes, hyphens that are to be copied
// as such, and lines that begin like a request.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }
func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
