package main

import (
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/prove/bench"
)

// Each table has a row for each load. It has a dash where a load was not run.
func TestTables(t *testing.T) {
	result := func(perSecond float64, p50, p99 time.Duration, cpu float64) *bench.Result {
		r := &bench.Result{PerSecond: perSecond, Servers: &bench.Servers{CPUPerOperation: cpu}}
		r.Latency.P50, r.Latency.P99 = p50, p99
		return r
	}
	f := &figures{systems: []string{dynastName, "etcd-1", "etcd-3"}, loads: []load{{title: "put"}, {title: "watch"}}, results: map[string]map[string][]*bench.Result{"put": {
		dynastName: {result(300, 2*time.Millisecond, 9*time.Millisecond, 50), result(100, 4*time.Millisecond, 7*time.Millisecond, 70)},
		"etcd-1":   {result(150, time.Millisecond, 3*time.Millisecond, 30), result(100, 4*time.Millisecond, 5*time.Millisecond, 35)},
		diskName:   {result(1000, 100*time.Microsecond, time.Millisecond, 0)},
	}}}
	var b strings.Builder
	f.throughput(&b)
	f.latency(&b)
	f.processor(&b)
	const want = `### Operations per second

| load | dynast | etcd-1 | etcd-3 | dynast / etcd-1 | dynast / etcd-3 | limit: echo | limit: disk |
| --- | --- | --- | --- | --- | --- | --- | --- |
| put | 200 (100 to 300) | 125 (100 to 150) | - | 1.50 | - | - | 1000 (1000 to 1000) |
| watch | - | - | - | - | - | - | - |

### Latency: p50, p99 in milliseconds

| load | dynast | etcd-1 | etcd-3 | p50, dynast / etcd-1 | p50, dynast / etcd-3 | limit: echo | limit: disk |
| --- | --- | --- | --- | --- | --- | --- | --- |
| put | 3.00, 8.00 | 2.50, 4.00 | - | 1.50 | - | - | 0.10, 1.00 |
| watch | - | - | - | - | - | - | - |

### Processor time of all server processes: microseconds for each operation

| load | dynast | etcd-1 | etcd-3 | dynast / etcd-1 | dynast / etcd-3 | limit: echo |
| --- | --- | --- | --- | --- | --- | --- |
| put | 60 | 32 | - | 1.83 | - | - |
| watch | - | - | - | - | - | - |

`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
