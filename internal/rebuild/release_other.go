//go:build !amd64

package rebuild

import "github.com/fermata-cr/fermata/internal/sys"

func (b *builder) leave(*proc, uint64) error { return sys.ErrArch }

func (b *builder) unmask(*proc) error { return sys.ErrArch }

func pausing(r sys.Regs, _ uint64) sys.Regs { return r }

func calling(r sys.Regs, _, _ uint64) sys.Regs { return r }

func issuing(r sys.Regs) sys.Regs { return r }
