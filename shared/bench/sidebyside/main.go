package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// The kernel sends a child its death signal when the thread that started it
// ends: all are started by the main thread.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sidebyside:", err)
		os.Exit(1)
	}
}

// run does what the arguments say. The first forms are for the processes that
// this program starts of itself.
func run(args []string) error {
	switch {
	case len(args) == 5 && args[0] == "etcd":
		return etcdMember(args[1], args[2], args[3], args[4])
	case len(args) == 3 && args[0] == "echo":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return serveEcho(args[1], n)
	}
	return compare(args)
}

// options is the command line.
type options struct {
	dynast, out, dir      string
	duration, rest        time.Duration
	warmup                time.Duration // before each single measurement
	rounds, kills, keys   int
	smoke, growth, keep   bool
	followers, valueBytes int
	largest               int // MiB
	only                  *regexp.Regexp
	line                  string // as it was typed
}

func parse(args []string) (*options, error) {
	o := &options{warmup: 500 * time.Millisecond}
	f := flag.NewFlagSet("bench.sh", flag.ContinueOnError)
	f.StringVar(&o.dynast, "dynast", "", "the `PROGRAM` to be measured")
	f.StringVar(&o.out, "out", "", "`FILE.md` whose section between the markers is replaced, with a chart beside it; empty: only print")
	f.StringVar(&o.dir, "dir", "", "where the data goes, on the disk that is to be measured; empty: the system's directory for temporary files")
	f.DurationVar(&o.duration, "duration", 3*time.Second, "of each single measurement")
	f.DurationVar(&o.rest, "rest", 15*time.Second, "of the look at the idle processes")
	f.IntVar(&o.rounds, "rounds", 3, "how often all is repeated")
	f.IntVar(&o.kills, "kills", 20, "how often the leader is killed, for each number of clients")
	f.IntVar(&o.keys, "keys", 50_000, "different keys, all of them there before the memory is looked at")
	f.IntVar(&o.valueBytes, "value-bytes", 256, "size of each value")
	f.IntVar(&o.followers, "followers", 2, "of dynast")
	f.BoolVar(&o.smoke, "smoke", false, "everything once and for a moment: a test that it works, no measurement")
	f.BoolVar(&o.growth, "growth", false, "measure how dynast's figures grow, instead of the comparison")
	f.BoolVar(&o.keep, "keep", false, "leave data and logs where they are")
	f.IntVar(&o.largest, "largest", 2048, "`MIB` of the largest database of -growth")
	only := f.String("only", "", "`REGEXP` of the titles of the loads; empty: all, and what is beside the loads")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unknown argument %s", f.Arg(0))
	case o.dynast == "":
		return nil, errors.New("name the program to be measured with -dynast")
	case o.rounds < 1 || o.kills < 1 || o.keys < 1 || o.duration <= 0 || o.rest <= 0:
		return nil, errors.New("rounds, kills, keys, duration and rest must be more than 0")
	}
	if o.smoke {
		o.duration, o.rest, o.rounds, o.kills, o.keys = 100*time.Millisecond, 100*time.Millisecond, 1, 1, 200
		o.warmup = 10 * time.Millisecond
	}
	if *only != "" {
		re, err := regexp.Compile(*only)
		if err != nil {
			return nil, err
		}
		o.only = re
	}
	for i := 0; i < len(args); i++ {
		if args[i] == "-dynast" || args[i] == "--dynast" { // where the build lies says nothing
			i++
			continue
		}
		o.line += " " + args[i]
	}
	return o, nil
}

func compare(args []string) (err error) {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp(o.dir, "dynast-bench-")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r := &runner{dynast: o.dynast, self: self, dir: dir, valueBytes: o.valueBytes}
	defer func() {
		err = errors.Join(err, r.end())
		if o.keep || err != nil {
			fmt.Fprintf(os.Stderr, "data and logs are in %s\n", dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	section, figure := "comparison", (*figures)(nil)
	var text string
	if o.growth {
		section = "growth"
		text, err = growth(ctx, r, o)
	} else if figure, err = sideBySide(ctx, r, o); err == nil {
		text = figure.tables(o)
	}
	if err != nil {
		return err
	}
	fmt.Print(text)
	if o.out == "" {
		return nil
	}
	return publish(o.out, section, text, figure)
}
