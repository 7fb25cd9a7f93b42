package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// endings are the signals that ask fermata to give up; stops those that would
// halt it while it holds a program still, which must not happen.
var (
	endings = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM}
	stops   = []os.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU}
	passed  = []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT}
)

// watcher owns the signals of a verb. While an operation runs, an ending
// signal cancels its context; later they can be taken one by one.
type watcher struct {
	ch     chan os.Signal
	cancel context.CancelFunc
	quit   chan struct{}
	done   chan struct{}
	caught []os.Signal // in order; valid when done is closed
}

// watch begins to catch signals: the endings, the stops, and what else is
// given. A signal that was ignored when fermata started (nohup, a shell's
// background job) stays so.
func watch(parent context.Context, also ...os.Signal) (context.Context, *watcher) {
	ctx, cancel := context.WithCancel(parent)
	w := &watcher{ch: make(chan os.Signal, 64), cancel: cancel, quit: make(chan struct{}), done: make(chan struct{})}
	sigs := slices.DeleteFunc(slices.Concat(endings, stops, also), signal.Ignored)
	signal.Notify(w.ch, sigs...)
	go func() {
		defer close(w.done)
		for {
			select {
			case s := <-w.ch:
				if s == syscall.SIGTTIN || s == syscall.SIGTTOU || s == syscall.SIGCONT {
					continue
				}
				w.caught = append(w.caught, s)
				if slices.Contains(endings, s) {
					cancel()
				}
			case <-w.quit:
				return
			}
		}
	}()
	return ctx, w
}

// operationDone ends the first part: signals now stay in the channel. An error
// that comes of a signal is given its name. Signals are never given back: one
// that comes when the work is done must not make it look undone.
func (w *watcher) operationDone(err error) error {
	w.cancel()
	close(w.quit)
	<-w.done
	if err != nil && errors.Is(err, context.Canceled) {
		for _, s := range w.caught {
			if slices.Contains(endings, s) {
				return &interrupted{s.(syscall.Signal), err}
			}
		}
	}
	return err
}
