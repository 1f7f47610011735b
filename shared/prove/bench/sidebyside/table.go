package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/prove/bench"
)

// spread is the median of a figure over the rounds, with the lowest and the highest value.
type spread struct{ median, low, high float64 }

func spreadOf(rs []*bench.Result, figure func(*bench.Result) float64) (spread, bool) {
	if len(rs) == 0 {
		return spread{}, false
	}
	var vs []float64
	for _, r := range rs {
		vs = append(vs, figure(r))
	}
	slices.Sort(vs)
	n := len(vs)
	return spread{median: (vs[(n-1)/2] + vs[n/2]) / 2, low: vs[0], high: vs[n-1]}, true
}

// ratio is the median over the rounds of the ratio within each round. Disturbances of a whole
// round cancel out.
func ratio(a, b []*bench.Result, figure func(*bench.Result) float64) string {
	var vs []float64
	for i := range min(len(a), len(b)) {
		if d := figure(b[i]); d > 0 {
			vs = append(vs, figure(a[i])/d)
		}
	}
	if len(vs) == 0 {
		return "-"
	}
	slices.Sort(vs)
	n := len(vs)
	return fmt.Sprintf("%.2f", (vs[(n-1)/2]+vs[n/2])/2)
}

func perSecond(r *bench.Result) float64 { return r.PerSecond }
func p50(r *bench.Result) float64       { return float64(r.Latency.P50) }
func p99(r *bench.Result) float64       { return float64(r.Latency.P99) }
func cpu(r *bench.Result) float64 {
	if r.Servers == nil {
		return 0
	}
	return r.Servers.CPUPerOperation
}

func (f *figures) tables(o *options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", machine(f.began))
	fmt.Fprintf(&b, "Command: `scripts/bench.sh%s`: %d rounds of %s for each figure, %d keys of 16 bytes with values of %d bytes. Medians over the rounds, with "+
		"the lowest and the highest in brackets; ratios are medians of the ratios within each round.\n\n", o.line, o.rounds, o.duration, o.keys, o.valueBytes)
	f.throughput(&b)
	f.latency(&b)
	f.processor(&b)
	if o.only == nil {
		f.resting(&b)
		f.failovers(&b)
	}
	return b.String()
}

// tableLimits are the last columns of a table of loads.
var tableLimits = []string{echoName, diskName}

func (f *figures) throughput(b *strings.Builder) {
	f.perLoad(b, "Operations per second", "", tableLimits, perSecond, func(rs []*bench.Result) string {
		s, _ := spreadOf(rs, perSecond)
		return fmt.Sprintf("%.0f (%.0f to %.0f)", s.median, s.low, s.high)
	})
}

func (f *figures) latency(b *strings.Builder) {
	f.perLoad(b, "Latency: p50, p99 in milliseconds", "p50, ", tableLimits, p50, func(rs []*bench.Result) string {
		half, _ := spreadOf(rs, p50)
		most, _ := spreadOf(rs, p99)
		return fmt.Sprintf("%.2f, %.2f", half.median/1e6, most.median/1e6)
	})
}

func (f *figures) processor(b *strings.Builder) {
	f.perLoad(b, "Processor time of all server processes: microseconds for each operation", "", tableLimits[:1], cpu, func(rs []*bench.Result) string {
		s, _ := spreadOf(rs, cpu)
		return fmt.Sprintf("%.0f", s.median)
	})
}

// perLoad writes a table with a row for each load. A row has a cell for each system, the ratios
// of dynast's figure to the figures of the others, and a cell for each limit. prefix stands before the
// names of the ratios.
func (f *figures) perLoad(b *strings.Builder, title, prefix string, limits []string, figure func(*bench.Result) float64, cell func([]*bench.Result) string) {
	row := func(cells []string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }
	header := append([]string{"load"}, f.systems...)
	for _, s := range f.systems[1:] {
		header = append(header, prefix+dynastName+" / "+s)
	}
	for _, l := range limits {
		header = append(header, "limit: "+l)
	}
	fmt.Fprintf(b, "### %s\n\n", title)
	row(header)
	row(slices.Repeat([]string{"---"}, len(header)))
	for _, l := range f.loads {
		rs, cells := f.results[l.title], []string{l.title}
		add := func(system string) {
			if len(rs[system]) == 0 {
				cells = append(cells, "-")
			} else {
				cells = append(cells, cell(rs[system]))
			}
		}
		for _, s := range f.systems {
			add(s)
		}
		for _, s := range f.systems[1:] {
			cells = append(cells, ratio(rs[dynastName], rs[s], figure))
		}
		for _, l := range limits {
			add(l)
		}
		row(cells)
	}
	fmt.Fprintln(b)
}

func (f *figures) resting(b *strings.Builder) {
	last := f.systems[len(f.systems)-1]
	fmt.Fprintf(b, "### Idle and memory, all processes of a system together\n\n| what | %s | %s / %s |\n|%s\n", strings.Join(f.systems, " | "), dynastName, last,
		strings.Repeat(" --- |", len(f.systems)+2))
	row := func(what, format string, figure func(system string) float64) {
		fmt.Fprintf(b, "| %s |", what)
		for _, s := range f.systems {
			fmt.Fprintf(b, " "+format+" |", figure(s))
		}
		quotient := "-"
		if d := figure(last); d > 0 {
			quotient = fmt.Sprintf("%.2f", figure(dynastName)/d)
		}
		fmt.Fprintf(b, " %s |\n", quotient)
	}
	const mib = 1 << 20
	row("idle: percent of a core", "%.2f", func(s string) float64 { return f.idle[s].Servers.CPUPercent })
	row("idle: KiB written to disk", "%.0f", func(s string) float64 { return float64(f.idle[s].Servers.DiskWriteBytes) / 1024 })
	row("with all keys written once: resident MiB, shared pages counted once", "%.1f", func(s string) float64 { return float64(f.memory[s].Servers.PSSBytes) / mib })
	row("the same, shared pages counted for each process", "%.1f", func(s string) float64 { return float64(f.memory[s].Servers.RSSBytes) / mib })
	row("the same, without pages of files", "%.1f", func(s string) float64 { return float64(f.memory[s].Servers.AnonBytes) / mib })
	row(fmt.Sprintf("right after %d puts of 64 clients: resident MiB, shared pages counted once", f.burst[last].Operations), "%.1f",
		func(s string) float64 { return float64(f.burst[s].Servers.PSSBytes) / mib })
	row("the same, without pages of files", "%.1f", func(s string) float64 { return float64(f.burst[s].Servers.AnonBytes) / mib })
	fmt.Fprintln(b)
}

func (f *figures) failovers(b *strings.Builder) {
	fmt.Fprint(b, "### The leader of dynast is killed with SIGKILL\n\n| writing clients | kills | gap between acknowledged writes: median | p99 | worst | "+
		"the client that waited longest: median | back to full strength: median | acknowledged writes, missing |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	ms := func(d time.Duration) string { return ms(d) + " ms" }
	for _, r := range f.failover {
		fmt.Fprintf(b, "| %d | %d | %s | %s | %s | %s | %s | %d, %d |\n", r.Clients, r.Kills, ms(r.Median), ms(r.P99), ms(r.Worst), ms(r.SlowestClient), ms(r.Refill), r.Writes, len(r.Missing))
	}
}

// machine describes what the figures depend on.
func machine(when time.Time) string {
	model, memory := "unknown processor", ""
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
			}
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		memory = fmt.Sprintf(", %d GiB of memory", (uint64(info.Totalram)*uint64(info.Unit)+1<<29)>>30)
	}
	var u unix.Utsname
	kernel := "unknown"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("Measured on %s: %d processors (%s)%s, Linux %s; %s, etcd %s.",
		when.Format("2006-01-02 15:04"), runtime.NumCPU(), model, memory, kernel, runtime.Version(), moduleVersion("go.etcd.io/etcd/server/v3"))
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == path {
				return d.Version
			}
		}
	}
	return "of unknown version"
}
