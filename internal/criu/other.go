package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/fermata-cr/fermata"
	"github.com/fermata-cr/fermata/internal/criu/imgdir"
)

func (c *command) lazyPages(context.Context) error { return later("lazy-pages") }
func (c *command) service(context.Context) error   { return later(c.Action) }
func (c *command) cpuinfo(context.Context) error   { return later("cpuinfo") }

// dedup frees the pages of earlier images that later ones have again.
func (c *command) dedup(context.Context) error {
	n, err := imgdir.Dedup(c.images)
	if err != nil {
		return err
	}
	c.log.infof("%d pages freed", n)
	c.log.infof("Deduplicated")
	return nil
}

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
