package treeview

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"

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

var update = flag.Bool("update", false, "rewrite the golden files")

// services are those of a report with a long name and a long note.
func services() *ps.Report {
	return &ps.Report{Services: []ps.Service{
		{Name: "web", Instances: []ps.Instance{
			{ID: "web/1", PID: 4194301, State: "ready", UptimeMS: 3723000, Restarts: 2, CPU: 1.25, RSSBytes: 30 << 20, Status: "serving 4 clients"},
			{ID: "web/2", State: "backoff", Restarts: 11, Reason: "starts again in 3.2s, the program exited with status 1 right after its start"},
		}},
		{Name: "idle"},
		{Name: "a-service-with-a-name-that-is-as-long-as-the-configuration-allows", Instances: []ps.Instance{
			{ID: "a-service-with-a-name-that-is-as-long-as-the-configuration-allows/12", PID: 17, State: "ready", UptimeMS: 47*3600000 + 59*60000, CPU: 101.5, RSSBytes: 3 << 29}}},
	}}
}

func filled() *tree.Tree {
	tr := sample()
	tr.Store = &tree.Store{Keys: 1234567, Revision: 23456789, UsedBytes: 34 << 20, FileBytes: 40 << 20, QuotaBytes: 2 << 30, DiskFreeBytes: 12<<30 + 400<<20,
		Alarms: []string{}, Connections: 12, Watchers: 1}
	return tr
}

// TestGolden: every state fits on the terminal, and the text is the same with colours.
func TestGolden(t *testing.T) {
	bad := filled()
	bad.Degraded, bad.Client = true, "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:2379"
	bad.Store.Alarms, bad.Store.UsedBytes = []string{"NOSPACE", "CORRUPT"}, 1900<<20
	bad.Members[0].Version, bad.Members[1].Version, bad.Members[2].Version = "v0.0.0-20261128234343-cdb522dabcde+dirty", "v1.2.3", "v1.2.3"
	bad.Members[0].Address, bad.Members[0].Lag, bad.Members[0].CPUPercent = "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:10000", 12345678, 1234.5
	bad.Deaths[0].Reason, bad.Deaths[0].ReplacedBy = "exit status 3 with a reason that goes on and on until nobody reads it any more", bad.Members[0].Address
	long := filled()
	for i := range long.Members {
		long.Members[i].Version = "v0.0.0-20261128234343-cdb522dabcde+dirty"
	}
	for name, tr := range map[string]*tree.Tree{"plain": filled(), "bad": bad, "long": long} {
		for _, width := range []int{60, 80, 120, 200} {
			got := render(t, tr, services(), term.Style{Width: width})
			for _, l := range strings.Split(got, "\n") {
				if n := utf8.RuneCountInString(l); n > max(width, 72) {
					t.Errorf("%s: %d columns: %s", name, n, l)
				}
			}
			golden := filepath.Join("testdata", fmt.Sprintf("%s-%d.txt", name, width))
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s: got\n%s\nwant\n%s\n(rewrite it with -update)", golden, got, want)
			}
			if coloured := render(t, tr, services(), term.Style{Width: width, Colour: true}); ansi.Strip(coloured) != got {
				t.Errorf("%s: in colour\n%s", golden, coloured)
			}
		}
	}
	if got := render(t, filled(), services(), term.Style{}); got != render(t, filled(), services(), term.Style{Width: 80}) {
		t.Errorf("without a terminal, the width is not 80:\n%s", got)
	}
}

// TestWriteOthers: versions are shown if they differ, a degraded cluster is marked, and a cluster
// without deaths or services has no list of them. An old leader does not describe the store.
func TestWriteOthers(t *testing.T) {
	tr := sample()
	tr.Members[0].Version, tr.Degraded, tr.Deaths = "v2", true, nil
	got := render(t, tr, &ps.Report{}, term.Style{})
	for _, want := range []string{"VERSION\n", "  v1\n", "  v2\n", "\nDEGRADED"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "DEATHS") || strings.Contains(got, "version ") || strings.Contains(got, "SERVICE") || strings.Contains(got, "keys") {
		t.Errorf("got\n%s", got)
	}
	tr.Members[0].State = "starting"
	if got := render(t, tr, nil, term.Style{}); strings.Contains(got, "1234 ") {
		t.Errorf("a starting follower has a lag: %s", got)
	}
	if got := render(t, &tree.Tree{Client: "x"}, nil, term.Style{}); !strings.Contains(got, "epoch 0  clients at x  0 deaths") {
		t.Errorf("an empty tree is\n%s", got)
	}
}

// TestStore: what is dangerous is coloured.
func TestStore(t *testing.T) {
	st := &tree.Store{Alarms: []string{"NOSPACE"}, UsedBytes: 90, QuotaBytes: 100}
	parts := Store(st)
	if parts[0] != (term.Cell{Text: "ALARM NOSPACE", Colour: term.Red}) || parts[2] != (term.Cell{Text: "90B of 100B in use", Colour: term.Yellow}) {
		t.Errorf("%+v", parts)
	}
	st.QuotaBytes = -1
	if parts := Store(st); parts[2] != (term.Cell{Text: "90B in use, no quota"}) {
		t.Errorf("%+v", parts)
	}
}
