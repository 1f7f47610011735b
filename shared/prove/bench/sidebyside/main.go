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
	"strings"
	"syscall"
	"time"
)

// The kernel sends a child its parent-death signal when the thread that started it ends. So the
// main thread starts all children.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sidebyside:", err)
		os.Exit(1)
	}
}

// run runs the command. The first two forms are for the processes that this program starts
// itself.
func run(args []string) error {
	switch {
	case len(args) == 5 && args[0] == "etcd":
		return etcdMember(args[1], args[2], args[3], args[4], nil)
	case len(args) == 7 && args[0] == "etcd":
		return etcdMember(args[1], args[2], args[3], args[4], args[5:])
	case len(args) == 2 && args[0] == "program":
		return beProgram(args[1])
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
	dynast, base          string
	out, dir              string
	duration, rest        time.Duration
	warmup                time.Duration // before each measurement
	rounds, kills, keys   int
	smoke, growth, keep   bool
	services, hosts       bool
	followers, valueBytes int
	largest               int // MiB
	only                  *regexp.Regexp
	line                  string // as typed
}

func parse(args []string) (*options, error) {
	o := &options{warmup: 500 * time.Millisecond}
	f := flag.NewFlagSet("bench.sh", flag.ContinueOnError)
	f.StringVar(&o.dynast, "dynast", "", "the `PROGRAM` to measure")
	f.StringVar(&o.base, "base", "", "another build of dynast, a `PROGRAM` that is measured in the same run instead of etcd with three members")
	f.StringVar(&o.out, "out", "", "`FILE.md` in which the section between the markers is replaced; the chart is written next to it; empty: print only")
	f.StringVar(&o.dir, "dir", "", "directory for the data, on the disk to measure; empty: the system's directory for temporary files")
	f.DurationVar(&o.duration, "duration", 3*time.Second, "duration of each measurement")
	f.DurationVar(&o.rest, "rest", 15*time.Second, "how long the idle processes are measured")
	f.IntVar(&o.rounds, "rounds", 3, "number of repetitions of all loads")
	f.IntVar(&o.kills, "kills", 20, "number of times that the leader is killed, for each number of clients")
	f.IntVar(&o.keys, "keys", 50_000, "number of different keys; all are written before the memory is measured")
	f.IntVar(&o.valueBytes, "value-bytes", 256, "size of each value")
	f.IntVar(&o.followers, "followers", 2, "number of followers of dynast")
	f.BoolVar(&o.smoke, "smoke", false, "run everything once and briefly, as a test of this program; the figures mean nothing")
	f.BoolVar(&o.growth, "growth", false, "measure how dynast's figures change with size, instead of the comparison")
	f.BoolVar(&o.services, "services", false, "measure services beside runit, s6, supervisord and pm2, as far as they are installed, instead of the comparison")
	f.BoolVar(&o.hosts, "hosts", false, "measure three hosts beside plain etcd on the same network namespaces, instead of the comparison; needs root and iproute2")
	f.BoolVar(&o.keep, "keep", false, "keep data and logs")
	f.IntVar(&o.largest, "largest", 2048, "`MIB` of the largest database of -growth")
	only := f.String("only", "", "`REGEXP` that selects loads by title; empty: all loads, and idle, memory and failover")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unknown argument %s", f.Arg(0))
	case o.dynast == "":
		return nil, errors.New("no program to measure: name it with -dynast")
	case o.rounds < 1 || o.kills < 1 || o.keys < 1 || o.duration <= 0 || o.rest <= 0:
		return nil, errors.New("invalid options: -rounds, -kills, -keys, -duration and -rest must be greater than 0")
	}
	if o.base != "" && (o.growth || o.services || o.hosts || o.out != "") {
		return nil, errors.New("-base belongs to the comparison, and its result is not for a file: leave out -growth, -services, -hosts and -out")
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
		if name := strings.TrimLeft(args[i], "-"); name == "dynast" || name == "base" { // the path of the build is irrelevant
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
	if err := os.Unsetenv("DYNAST_DATA_DIR"); err != nil { // it overrides the files that this program writes
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
	} else if o.services {
		section = "services"
		text, err = measureServices(ctx, r, o)
	} else if o.hosts {
		section = "hosts"
		text, err = measureHosts(ctx, r, o)
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
