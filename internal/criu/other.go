package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/fermata-cr/fermata"
)

func (c *command) preDump(context.Context) error    { return later("pre-dump") }
func (c *command) dedup(context.Context) error      { return later("dedup") }
func (c *command) pageServer(context.Context) error { return later("page-server") }
func (c *command) lazyPages(context.Context) error  { return later("lazy-pages") }
func (c *command) service(context.Context) error    { return later(c.Action) }
func (c *command) cpuinfo(context.Context) error    { return later("cpuinfo") }

// check tells whether this machine allows what a dump and a restore need.
func (c *command) check(context.Context) error {
	if len(c.Features) > 0 {
		return c.features()
	}
	r := fermata.Doctor()
	for _, a := range r.Abilities {
		for _, why := range a.Why {
			c.log.warnf("%s: %s", a.Title, why)
		}
	}
	if !r.OK() {
		return errors.New("programs cannot be saved and restored here")
	}
	fmt.Fprintln(c.stdout, "Looks good.")
	return nil
}

// features tells of single features of the kernel, by CRIU's names.
func (c *command) features() error {
	missing := 0
	for _, list := range c.Features {
		for _, f := range strings.Split(list, ",") {
			probe, known := featureProbes[f]
			if !known {
				return usage("unknown feature %q", f)
			}
			if !probe() {
				c.log.warnf("feature %s is not there", f)
				missing++
			}
		}
	}
	if missing > 0 {
		return exitCode(1)
	}
	return nil
}

func exists(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}
