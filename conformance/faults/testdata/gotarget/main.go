// Command gotarget is many goroutines at the lower ends of their stacks: what
// lies below is other goroutines' memory. Each checks its own. Asynchronous
// preemption sends signals all the time.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

var progress, wrong atomic.Uint64

//go:noinline
func deep(n int, seed uint64) uint64 {
	var a [3]uint64
	for i := range a {
		a[i] = seed + uint64(n*8+i)
	}
	if n > 0 {
		if deep(n-1, seed) != seed+uint64(n-1)*3 {
			wrong.Add(1)
		}
	} else {
		for end := time.Now().Add(300 * time.Microsecond); time.Now().Before(end); {
			spin(&a)
		}
	}
	for i := range a {
		if a[i] != seed+uint64(n*8+i) {
			wrong.Add(1)
		}
	}
	return seed + uint64(n)*3
}

//go:noinline
func spin(a *[3]uint64) {
	for i := range 2000 {
		if a[i%3] == 1 {
			return
		}
	}
}

func main() {
	page, err := os.OpenFile(os.Args[1], os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	for g := range 8 {
		go func() {
			for i := 0; ; i++ {
				// Depths all over the stack, so that some end just above its limit.
				done := make(chan bool)
				go func() { deep(1+(i*7+g)%60, uint64(g)<<32+uint64(i)); done <- true }()
				<-done
				progress.Add(1)
				if g%2 == 0 {
					time.Sleep(200 * time.Microsecond)
				}
			}
		}()
	}
	go func() {
		for {
			time.Sleep(20 * time.Millisecond)
			runtime.GC()
		}
	}()
	for {
		time.Sleep(5 * time.Millisecond)
		page.WriteAt([]byte(fmt.Sprintf("%20d %20d\n", progress.Load(), wrong.Load())), 0)
	}
}
