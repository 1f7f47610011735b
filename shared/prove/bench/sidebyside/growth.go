package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/prove/bench"
)

// scale holds the values that growth measures; the smoke test has a small one.
type scale struct {
	clients, valueBytes, followers, databaseMiB []int
}

func scaleOf(o *options) scale {
	if o.smoke {
		return scale{clients: []int{1, 8}, valueBytes: []int{64, 4096}, followers: []int{1}, databaseMiB: []int{1}}
	}
	s := scale{clients: []int{1, 4, 16, 64, 256, 1000}, valueBytes: []int{64, 1 << 10, 16 << 10, 256 << 10, 1 << 20},
		followers: []int{1, 2, 3, 5}, databaseMiB: []int{1, 16, 128, 512, 2048}}
	for i, mib := range s.databaseMiB {
		if mib > o.largest {
			s.databaseMiB = s.databaseMiB[:i]
			break
		}
	}
	return s
}

// growth measures how dynast's figures change with clients, sizes, followers and the database.
func growth(ctx context.Context, r *runner, o *options) (string, error) {
	var b strings.Builder
	s := scaleOf(o)
	fmt.Fprintf(&b, "%s\n\nCommand: `scripts/bench.sh%s`: one run of %s for each row.\n\n", machine(time.Now()), o.line, o.duration)
	for _, part := range []func(context.Context, *runner, *options, scale, *strings.Builder) error{
		byClients, byValue, byFollowers, byDatabase,
	} {
		if err := part(ctx, r, o, s, &b); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// once runs one load.
func once(ctx context.Context, r *runner, o *options, run *running, workload string, clients int, extra ...string) (*bench.Result, error) {
	say("%s, %d clients %s", workload, clients, strings.Join(extra, " "))
	args := append([]string{workload, "--clients", strconv.Itoa(clients), "--connections", strconv.Itoa(max(1, min(clients/16, 8))),
		"--duration", o.duration.String(), "--warmup", o.warmup.String()}, extra...)
	return measure[bench.Result](ctx, r, run, args...)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/1e6) }
func mib(bytes uint64) string   { return fmt.Sprintf("%.0f", float64(bytes)/(1<<20)) }

func byClients(ctx context.Context, r *runner, o *options, s scale, b *strings.Builder) error {
	run, err := startDynast(ctx, r, dynastName, r.dynast, o.followers)
	if err != nil {
		return err
	}
	fmt.Fprint(b, "### Clients\n\n| clients | puts/s | p50 ms | p99 ms | CPU us | gets/s | p50 ms | p99 ms | CPU us | resident MiB |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, n := range s.clients {
		put, err := once(ctx, r, o, run, "put", n)
		if err != nil {
			return err
		}
		get, err := once(ctx, r, o, run, "get", n)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "| %d | %.0f | %s | %s | %.0f | %.0f | %s | %s | %.0f | %s |\n", n,
			put.PerSecond, ms(put.Latency.P50), ms(put.Latency.P99), put.Servers.CPUPerOperation,
			get.PerSecond, ms(get.Latency.P50), ms(get.Latency.P99), get.Servers.CPUPerOperation, mib(get.Servers.PSSBytes))
	}
	fmt.Fprintln(b)
	return r.stop(ctx, run)
}

func byValue(ctx context.Context, r *runner, o *options, s scale, b *strings.Builder) error {
	run, err := startDynast(ctx, r, dynastName, r.dynast, o.followers)
	if err != nil {
		return err
	}
	fmt.Fprint(b, "### Size of values, 16 clients\n\n| bytes | puts/s | MiB/s | p50 ms | p99 ms | CPU us | resident MiB |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, n := range s.valueBytes {
		put, err := once(ctx, r, o, run, "put", 16, "--value-bytes", strconv.Itoa(n), "--keys", "200")
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "| %d | %.0f | %.1f | %s | %s | %.0f | %s |\n", n, put.PerSecond, put.PerSecond*float64(n)/(1<<20),
			ms(put.Latency.P50), ms(put.Latency.P99), put.Servers.CPUPerOperation, mib(put.Servers.PSSBytes))
	}
	fmt.Fprintln(b)
	return r.stop(ctx, run)
}

func byFollowers(ctx context.Context, r *runner, o *options, s scale, b *strings.Builder) error {
	fmt.Fprint(b, "### Followers, 64 clients\n\n| followers | puts/s | p50 ms | p99 ms | CPU us | resident MiB |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, n := range s.followers {
		run, err := startDynast(ctx, r, dynastName, r.dynast, n)
		if err != nil {
			return err
		}
		put, err := once(ctx, r, o, run, "put", 64)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "| %d | %.0f | %s | %s | %.0f | %s |\n", n, put.PerSecond, ms(put.Latency.P50), ms(put.Latency.P99),
			put.Servers.CPUPerOperation, mib(put.Servers.PSSBytes))
		if err := r.stop(ctx, run); err != nil {
			return err
		}
	}
	fmt.Fprintln(b)
	return nil
}

func byDatabase(ctx context.Context, r *runner, o *options, s scale, b *strings.Builder) error {
	fmt.Fprint(b, "### Size of the database (values of 1 KiB)\n\n| MiB | puts/s, 64 clients | gets/s, 64 clients | resident MiB | gap at a leader's death, 1 client: median ms | worst | 64 clients: median | worst | "+
		"new follower in sync: median ms | start of all until the first answer: ms | until all are in sync: ms |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, size := range s.databaseMiB {
		row, err := databaseRow(ctx, r, o, size)
		if err != nil {
			return err
		}
		fmt.Fprintln(b, row)
	}
	fmt.Fprintln(b)
	return nil
}

func databaseRow(ctx context.Context, r *runner, o *options, sizeMiB int) (string, error) {
	run, err := startDynast(ctx, r, dynastName, r.dynast, o.followers)
	if err != nil {
		return "", err
	}
	say("database of %d MiB", sizeMiB)
	held, err := measure[bench.Resting](ctx, r, run, "memory", "--keys", strconv.Itoa(sizeMiB<<10), "--value-bytes", "1024", "--rest", min(o.rest, 5*time.Second).String())
	if err != nil {
		return "", err
	}
	put, err := once(ctx, r, o, run, "put", 64, "--value-bytes", "1024")
	if err != nil {
		return "", err
	}
	get, err := once(ctx, r, o, run, "get", 64, "--value-bytes", "1024")
	if err != nil {
		return "", err
	}
	row := fmt.Sprintf("| %d | %.0f | %.0f | %s |", sizeMiB, put.PerSecond, get.PerSecond, mib(held.Servers.PSSBytes))
	run.pids = nil // the processes change
	var refill time.Duration
	for _, clients := range []int{1, 64} {
		res, err := measure[bench.FailoverResult](ctx, r, run, "failover", "--kills", strconv.Itoa(min(o.kills, 5)), "--clients", strconv.Itoa(clients))
		if err != nil {
			return "", err
		}
		row += fmt.Sprintf(" %s | %s |", ms(res.Median), ms(res.Worst))
		if refill == 0 {
			refill = res.Refill
		}
	}
	if err := r.stop(ctx, run); err != nil {
		return "", err
	}
	began := time.Now()
	if _, err := r.start(dynastName, r.dynast, "up", "--config", run.config); err != nil {
		return "", err
	}
	r.clusters = append(r.clusters, run)
	if err := r.serves(ctx, run, time.Minute); err != nil {
		return "", err
	}
	first := time.Since(began)
	if err := r.full(ctx, run, o.followers); err != nil {
		return "", err
	}
	row += fmt.Sprintf(" %s | %s | %s |", ms(refill), ms(first), ms(time.Since(began)))
	return row, r.stop(ctx, run)
}

// stop stops one cluster of dynast.
func (r *runner) stop(ctx context.Context, run *running) error {
	out, err := exec.CommandContext(ctx, r.dynast, "stop", "--data-dir", run.dataDir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("stop dynast in %s: %w: %s", run.dataDir, err, out)
	}
	for i, c := range r.clusters {
		if c == run {
			r.clusters = append(r.clusters[:i], r.clusters[i+1:]...)
			break
		}
	}
	return nil
}
