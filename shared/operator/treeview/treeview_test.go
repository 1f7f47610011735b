package treeview

import (
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/term"
)

func sample() *tree.Tree {
	return &tree.Tree{
		Epoch: 3, Leader: "127.0.0.1:9999", Heir: "127.0.0.1:10000", Client: "127.0.0.1:2379", Restarts: 1, Takeovers: 2,
		Members: []tree.Member{
			{Address: "127.0.0.1:9998", PID: 12, Role: "follower", State: "lagging", Slot: 3, Index: 7, Lag: 1234, HeartbeatAgeMS: 12, UptimeMS: 200 * 3600 * 1000, RSSBytes: 30 << 20, Version: "v1"},
			{Address: "127.0.0.1:9999", PID: 1234567, Role: "leader", State: "serving", Slot: 1, Index: 1241, UptimeMS: 1500, RSSBytes: 1 << 30, Version: "v1", CPUPercent: 12.345, Restarts: 10},
			{Address: "127.0.0.1:10000", PID: 34, Role: "follower", State: "in_sync", Slot: 2, Index: 1241, HeartbeatAgeMS: 250, UptimeMS: 61000, RSSBytes: 31 << 20, Version: "v1"},
		},
		Deaths: []tree.Death{
			{Address: "127.0.0.1:9997", PID: 9, Reason: "signal: killed", At: start.Add(-time.Minute), ReplacedBy: "127.0.0.1:9998"},
			{Address: "127.0.0.1:10001", PID: 10, Reason: "exit\x1b[31m status 1", At: start.Add(-time.Second)},
		},
	}
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func render(t *testing.T, tr *tree.Tree, services *ps.Report, s term.Style) string {
	t.Helper()
	var b strings.Builder
	if err := Write(&b, tr, services, start, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWrite(t *testing.T) {
	const want = `epoch 3, clients at 127.0.0.1:2379, version v1, 1 death, 2 takeovers

PROCESS                             STATE        PID    UP  INDEX   LAG  HEARD    CPU      MEM  SLOT  RESTARTS
127.0.0.1:9999 leader               serving  1234567  1.5s   1241     0      -  12.3%  1024MiB     1        10
├─ 127.0.0.1:9998 follower          lagging       12    8d      7  1234   12ms   0.0%    30MiB     3         0
└─ 127.0.0.1:10000 follower (heir)  in_sync       34  1m1s   1241     0  250ms   0.0%    31MiB     2         0

last deaths (2 of 2)
  1s ago    127.0.0.1:10001  pid 10  exit` + "\ufffd" + `[31m status 1  not replaced yet
  1m0s ago  127.0.0.1:9997   pid 9   signal: killed      replaced by 127.0.0.1:9998
`
	got := render(t, sample(), nil, term.Style{})
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// The text is the same with colours.
	coloured := render(t, sample(), nil, term.Style{Colour: true})
	for _, c := range []string{"0", "1", "2", "31", "32", "33", "36"} {
		coloured = strings.ReplaceAll(coloured, "\x1b["+c+"m", "")
	}
	if coloured != want {
		t.Errorf("in colour\n%s", coloured)
	}
}

// TestWriteServices: the services are between the members and the deaths, and fit on 80 columns.
func TestWriteServices(t *testing.T) {
	services := &ps.Report{Services: []ps.Service{
		{Name: "web", Instances: []ps.Instance{
			{ID: "web/1", PID: 4194301, State: "ready", UptimeMS: 3723000, Restarts: 2, CPU: 1.25, RSSBytes: 30 << 20, Status: "serving 4 clients"},
			{ID: "web/2", State: "backoff", Restarts: 11, Reason: "starts again in 3.2s, the program exited with status 1 right after its start"},
		}},
		{Name: "idle"},
	}}
	const want = `
└─ 127.0.0.1:10000 follower (heir)  in_sync       34  1m1s   1241     0  250ms   0.0%    31MiB     2         0

SERVICE  STATE             PID      UP  RESTARTS   CPU    MEM  NOTE
web/1    ready         4194301  1h2m3s         2  1.2%  30MiB  serving 4 clients
web/2    backoff             -       -        11     -      -  starts again i...
idle     no instances

last deaths (2 of 2)
`
	got := render(t, sample(), services, term.Style{})
	if !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	_, table, _ := strings.Cut(got, "SERVICE")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, l := range strings.Split(table, "\n") {
		if len(l) > 80 {
			t.Errorf("%d columns: %s", len(l), l)
		}
	}
}

// TestWriteOthers: versions are shown if they differ, a degraded cluster is marked, and a cluster
// without deaths or services has no list of them.
func TestWriteOthers(t *testing.T) {
	tr := sample()
	tr.Members[0].Version, tr.Degraded, tr.Deaths = "v2", true, nil
	got := render(t, tr, &ps.Report{}, term.Style{})
	for _, want := range []string{"VERSION\n", "0  v1\n", "0  v2\n", "\nDEGRADED"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "deaths") || strings.Contains(got, "version ") || strings.Contains(got, "SERVICE") {
		t.Errorf("got\n%s", got)
	}
	tr.Members[0].State = "starting"
	if got := render(t, tr, nil, term.Style{}); !strings.Contains(got, " syncing ") || strings.Contains(got, "1234 ") {
		t.Errorf("a starting follower has a lag: %s", got)
	}
	if got := render(t, &tree.Tree{Client: "x"}, nil, term.Style{}); !strings.Contains(got, "epoch 0, clients at x, 0 deaths") {
		t.Errorf("an empty tree is\n%s", got)
	}
}
