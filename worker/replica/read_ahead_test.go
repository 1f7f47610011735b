package replica

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

// leadersLog makes a log of n entries in slot 1.
func leadersLog(t *testing.T, dir *datadir.Dir, n uint64) replog.Options {
	t.Helper()
	if err := dir.Slot(1).Make(); err != nil {
		t.Fatal(err)
	}
	o := replog.Options{Dir: dir.Slot(1).LogDir()}
	log, err := replog.Create(o, entry.Position{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := log.Append([]entry.Entry{{Index: i + 1, Epoch: 1, Data: []byte("data")}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return o
}

// damageBeginning damages a log so that reading it from its beginning fails.
func damageBeginning(t *testing.T, o replog.Options) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(o.Dir, "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	f, err := os.OpenFile(segments[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{0xff}, 120); err != nil {
		t.Fatal(err)
	}
	if _, _, err := replog.Read(o.Dir, entry.Position{Epoch: 1, Index: 55}, o); !errors.Is(err, replog.ErrCorrupt) {
		t.Fatalf("%v: the damage does not make reading fail", err)
	}
}

// A member that is named the successor reads the leader's log at once, so that the takeover does
// not read those entries again.
func TestSuccessorReadsAhead(t *testing.T) {
	dir, err := datadir.Open(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	o := leadersLog(t, dir, 60)
	own := entry.Position{Epoch: 1, Index: 55}
	leader, self, other := memberAt(7001), memberAt(7002), memberAt(7000)
	sh, _ := statetest.New(t, &config.Config{}, false)
	sh.Dir, sh.Self.Address = dir, self.Address
	sh.Committed.Store(50)
	a := newReadAhead(sh)
	done := make(chan struct{})
	go func() { defer close(done); a.run() }()
	defer func() { sh.Leading.Store(true); close(sh.Leads); <-done }()
	r := &roster.Roster{Epoch: 1, Leader: leader.Address, Members: []roster.Member{
		{ID: other, State: roster.InSync, Slot: 3}, {ID: leader, State: roster.Serving, Slot: 1}, {ID: self, State: roster.InSync, Slot: 2}}}
	sh.Publish(r)
	a.rosterChanged(r)
	if a.choose(r) != nil {
		t.Error("a member that is not the heir reads ahead")
	}
	named := r.Clone()
	named.Successor = self.Address
	sh.Publish(named)
	a.rosterChanged(named)
	for a.choose(named).At() != (entry.Position{Epoch: 1, Index: 50}) {
		time.Sleep(time.Millisecond) // it is the test's time limit that ends this
	}
	damageBeginning(t, o)
	succession := datadir.Succession{ClusterID: 1, Epoch: 1, Slot: 1, BootID: "b", Client: "127.0.0.1:2379",
		Leader: datadir.Leader{Address: leader.Address.String(), PID: leader.PID, StartTime: leader.StartTime}}
	if err := dir.WriteSuccession(succession); err != nil {
		t.Fatal(err)
	}
	if got, last, err := a.read(1, own, o); err != nil || len(got) != 5 || last.Index != 60 {
		t.Errorf("%d entries up to %s, %v: want 5 up to 60", len(got), last, err)
	}
	// Another process has had the slot since, so the entries that were read may be gone.
	succession.Leader.PID++
	if err := dir.WriteSuccession(succession); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.read(1, own, o); !errors.Is(err, replog.ErrCorrupt) {
		t.Errorf("%v: the log of another process has to be read from its beginning", err)
	}
}
