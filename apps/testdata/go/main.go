// A Go program of many goroutines: a TCP listener with clients that talk to it,
// workers on channels, timers, mutexes, a growing and shrinking heap, a child
// process. It says how far it is in the file "progress" and prints what it
// computed.
package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// serve answers each line with a digest of all lines so far of its connection.
func serve(l net.Listener, served *atomic.Int64) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			h := sha256.New()
			r := bufio.NewReader(c)
			for {
				line, err := r.ReadString('\n')
				if err == io.EOF {
					return
				}
				check(err)
				io.WriteString(h, line)
				_, err = fmt.Fprintf(c, "%x\n", h.Sum(nil))
				check(err)
				served.Add(1)
			}
		}()
	}
}

func client(addr string, n, rounds int, step <-chan int, out chan<- string) {
	c, err := net.Dial("tcp", addr)
	check(err)
	defer c.Close()
	check(c.SetDeadline(time.Now().Add(time.Minute)))
	r := bufio.NewReader(c)
	last := ""
	for range rounds {
		round := <-step
		_, err := fmt.Fprintf(c, "client %d round %d\n", n, round)
		check(err)
		last, err = r.ReadString('\n')
		check(err)
		out <- last
	}
}

const (
	rounds  = 150
	clients = 16
	workers = 200
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	var served, ticks atomic.Int64
	go serve(l, &served)

	steps := make([]chan int, clients)
	answers := make(chan string, clients)
	for i := range steps {
		steps[i] = make(chan int)
		go client(l.Addr().String(), i, rounds, steps[i], answers)
	}

	// Many goroutines that mostly wait.
	type job struct {
		seed int64
		back chan<- uint64
	}
	jobs := make(chan job)
	for range workers {
		go func() {
			for j := range jobs {
				rnd := rand.New(rand.NewSource(j.seed))
				garbage := make([][]byte, 0, 16)
				var s uint64
				for range 400 {
					b := make([]byte, 16+rnd.Intn(2000))
					rnd.Read(b)
					garbage = append(garbage, b)
					s = s*31 + uint64(b[len(b)/2])
					if len(garbage) == 16 {
						garbage = garbage[:0]
					}
				}
				j.back <- s
			}
		}()
	}
	go func() {
		for range time.Tick(3 * time.Millisecond) {
			ticks.Add(1)
		}
	}()

	cat := exec.Command("cat")
	in, err := cat.StdinPipe()
	check(err)
	from, err := cat.StdoutPipe()
	check(err)
	check(cat.Start())
	echo := bufio.NewReader(from)

	progress, err := os.Create("progress")
	check(err)
	kept := map[string][]byte{}
	var mu sync.RWMutex
	total := sha256.New()
	for r := range rounds {
		for _, s := range steps {
			s <- r
		}
		var all []string
		for range steps {
			all = append(all, <-answers)
		}
		sort.Strings(all)
		back := make(chan uint64, 32)
		var sum uint64
		for i := range 32 {
			jobs <- job{int64(r*32 + i), back}
		}
		for range 32 {
			sum += <-back
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				mu.Lock()
				defer mu.Unlock()
				kept[fmt.Sprint(r, i)] = make([]byte, 4096)
				delete(kept, fmt.Sprint(r-20, i))
			})
		}
		wg.Wait()
		_, err = fmt.Fprintf(in, "%d %d\n", r, sum)
		check(err)
		line, err := echo.ReadString('\n')
		check(err)
		time.Sleep(time.Millisecond)
		fmt.Fprintln(total, all, sum, line, len(kept))
		fmt.Fprintln(progress, r)
	}
	check(in.Close())
	check(cat.Wait())
	check(l.Close())
	if ticks.Load() < 10 {
		fmt.Println("the ticker did not tick")
	}
	fmt.Printf("%x %d\n", total.Sum(nil), served.Load())
}
